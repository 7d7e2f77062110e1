"""Two threads that share a loop: one makes what the other uses."""

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Queue, ShutDown


def ahead[T](items: Iterable[T], most: int) -> Generator[T]:
    """The items in their order, made in a thread that is at most `most` of them ahead of the caller.

    An error of theirs is raised where it would be without the thread: behind the items before it. Close the generator:
    then the thread ends with the item that it is at.
    """
    waiting: Queue[T] = Queue(most)

    def make() -> None:
        with suppress(ShutDown):  # the caller wants no more
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
