"""Runs a loop in two threads: one produces what the other consumes."""

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Queue, ShutDown


def ahead[T](items: Iterable[T], most: int) -> Generator[T]:
    """Yields the items in order. A thread produces them, at most `most` ahead of the caller.

    If producing an item raises, the caller gets the exception in that item's place. When the generator is closed, the
    thread ends after its current item.
    """
    waiting: Queue[T] = Queue(most)

    def make() -> None:
        with suppress(ShutDown):  # the caller has closed the generator
            for item in items:
                waiting.put(item)

    with ThreadPoolExecutor(max_workers=1) as thread:
        making = thread.submit(make)
        making.add_done_callback(lambda _: waiting.shutdown())
        try:
            with suppress(ShutDown):
                while True:
                    yield waiting.get()
        finally:
            waiting.shutdown(immediate=True)
    making.result()
