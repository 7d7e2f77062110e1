"""Measures the longest steps of making a digest's edition, with the most and largest rows that it may have.

    python -m bench.mail.largest

An invocation that is short of time finishes its step and uploads the file, so both must fit into TIME_TO_PUBLISH. CPU
time is this machine's; the last column divides it by the function's share of a core and adds the transfer. The object
store is another process. Signing for plain HTTP hashes the content, which costs about as much as TLS.
"""
# ruff: noqa: SLF001 - the steps have no other names

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from sqlite3 import Connection
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch
from uuid import UUID

from bench import deployment, tables
from bench.jobs import network, paper
from bench.processes import peak_megabytes
from nexus.aws.table import Page, Table

BLOCKS_A_PAGE = 16_000
STORY = f'{{"text":"{"山" * 400}","likes":1000000,"comments":100000,"shares":100000,"picture":{"x" * 230}}}'
CHANCE = random.Random(4)


def new_id() -> str:
    return str(UUID(int=CHANCE.getrandbits(128)))


def show() -> None:
    """Prints the table. Exits with 1 if a step and the upload take longer than the time kept for them."""
    deployment.enter("emails")
    import send_content_digest_email as task

    with TemporaryDirectory() as folder:
        path = Path(folder) / "edition.sqlite"
        steps = {name: cpu / paper.core_share("emails") for name, cpu in cpu_of_steps(path).items()}
        megabytes = path.stat().st_size / 1e6
        with stored() as port, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            moved = pool.submit(travel, path, port).result()
    transfer = megabytes * 1e6 / paper.BYTES_A_SECOND
    rows = [(name, f"{took * paper.core_share('emails'):.1f}", f"{took:.1f}") for name, took in steps.items()]
    whole = {name: cpu / paper.core_share("emails") + transfer for name, (cpu, _) in moved.items()}
    rows += [(f"{name} {megabytes:,.0f} MB", f"{moved[name][0]:.1f}", f"{took:.1f}") for name, took in whole.items()]
    header = ("longest steps of the largest edition", "CPU s", f"s at {paper.core_share('emails'):.2f} of a core")
    tables.show("mail-largest", tables.markdown(header, rows), tables.MAIL)
    print("most memory of the process: " + ", ".join(f"{name} {peak:.0f} MB" for name, (_, peak) in moved.items()))
    if max(steps.values()) + whole["publish"] > task.TIME_TO_PUBLISH:
        sys.exit(f"more than {task.TIME_TO_PUBLISH} s")


def cpu_of_steps(path: Path) -> dict[str, float]:
    """Makes the largest edition; CPU seconds of each statement over all of it, and of the longest page of blocks."""
    import digest.edition as making

    most = making.KEPT_POSTS
    authors = [new_id() for _ in range(most)]

    def rank(database: Connection) -> None:
        rows = ((new_id(), CHANCE.choice(authors), CHANCE.random() * 7, network.NOW) for _ in range(most))
        with making._written(database):
            database.executemany("INSERT INTO ranked VALUES (?, ?, ?, ?)", rows)

    def scan(*_: object, **__: object) -> Iterator[Page]:
        for left in range(making.KEPT_BLOCKS - BLOCKS_A_PAGE, -1, -BLOCKS_A_PAGE):
            ids = [{"S": new_id()} for _ in range(BLOCKS_A_PAGE + BLOCKS_A_PAGE // 2)]
            items = [{"user_id": ids[n // 2], "blocked_id": ids[BLOCKS_A_PAGE // 2 + n]} for n in range(BLOCKS_A_PAGE)]
            yield Page(items, BLOCKS_A_PAGE, ids[0] if left else None)  # type: ignore[arg-type]

    found = {}
    with making._open(path.with_suffix(".shard")) as shard:
        rank(shard)
    with making._open(path) as database:
        rank(database)
        with patch.object(making, "fetch"):
            merging = making._gather(path, ["a shard"], database, None)
            found["merge a shard with the best of others"] = longest(lambda: next(merging))
            found["order the best"] = longest(lambda: next(merging, None))
        with making._written(database):
            posts = ((CHANCE.choice(authors), new_id(), network.NOW, CHANCE.randrange(10**7), STORY) for _ in authors)
            database.executemany("INSERT INTO posts VALUES (?, ?, ?, ?, ?)", posts)
            database.executemany("INSERT INTO authors VALUES (?, ?)", ((one, "山" * 24) for one in authors))
        database.execute("DELETE FROM kept")
        found["list the authors"] = longest(lambda: list(making._fill_posts(database, None)))
        database.execute("DELETE FROM wanted")
        found["remove the posts of deleted authors"] = longest(lambda: list(making._fill_authors(database, None)))
        with patch.object(Table, "scan", scan), patch.object(Table, "size", return_value=(0, 0)):
            pages = making._fill_blocks(database, None)
            found["store a page of blocks"] = max(longest(lambda: next(pages, None)) for _ in range(most // 1_600))
            assert next(pages, pages) is pages
        found["choose the top"] = longest(lambda: list(making._choose_top(database, None)))
    return found


def longest(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


class Store(BaseHTTPRequestHandler):
    """One object, of which only the size is kept."""

    protocol_version = "HTTP/1.1"
    size = 0

    def do_PUT(self) -> None:
        left = Store.size = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        self._answer(0)

    def do_GET(self) -> None:
        self._answer(Store.size)
        for sent in range(0, Store.size, 1 << 20):
            self.wfile.write(bytes(min(1 << 20, Store.size - sent)))

    def _answer(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def stored() -> Iterator[int]:
    """The port of the object store."""
    server = HTTPServer(("127.0.0.1", 0), Store)
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    try:
        yield server.server_port
    finally:
        process.terminate()
        process.join()
        server.server_close()


def travel(path: Path, port: int) -> dict[str, tuple[float, float]]:
    """(CPU seconds, most MB of memory) of publishing the file and fetching it again, in a separate process."""
    deployment.enter("emails", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", AWS_MAX_ATTEMPTS="1")
    os.environ.pop("AWS_REQUEST_CHECKSUM_CALCULATION", None)
    import digest.edition as making

    small = path.with_name("small")
    small.write_bytes(b"x")
    making.publish(small, "digest/small")  # imports and connects
    making.fetch("digest/small", small)
    found = {}
    for name, work in (("publish", making.publish), ("fetch", making.fetch)):
        both = (path, "digest/x") if name == "publish" else ("digest/x", path)
        cpu = longest(lambda work=work, both=both: work(*both))  # type: ignore[misc]
        found[name] = cpu, peak_megabytes()
    return found


if __name__ == "__main__":
    show()
