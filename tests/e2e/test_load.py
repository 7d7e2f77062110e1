"""Many uploads at once on the local cloud: all end ready, none is a dead letter, and the machine has room left.

Three times as many as there are sandboxes show the bound. NEXUS_LOAD_UPLOADS=1000 is the run of which
docs/operations.md has the figures.
"""

import io
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from PIL import Image

from dev.local_cloud import SANDBOX_BYTES, sandboxes
from nexus.settings import Settings, settings
from ops.checkout import cloud_folder, running
from social import application
from social.data import posts
from social.data.posts import Post
from tests.support.patience import eventually
from tests.support.stack import take

UPLOADS = int(os.environ.get("NEXUS_LOAD_UPLOADS", "48"))
WITHIN = 300.0 + 3.0 * UPLOADS


class Watch:
    """The cloud's observed maximums: sandboxes, bytes of their folders, bytes of memory."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.sandboxes = self.disk = self.memory = 0

    def look(self) -> None:
        folders = list((cloud_folder() / "tmp").glob("ministack-lambda-*"))
        self.sandboxes = max(self.sandboxes, len(folders))
        self.disk = max(self.disk, sum(map(size_of, folders)))
        self.memory = max(self.memory, memory_of_session(self.pid))


def size_of(folder: Path) -> int:
    """The bytes of a folder's files, some of which may be deleted meanwhile."""
    total = 0
    for name, _, files in os.walk(folder):
        for file in files:
            try:
                total += (Path(name) / file).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def memory_of_session(session: int) -> int:
    """The resident memory of the cloud and its sandboxes, each page counted for every process that maps it."""
    pages = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            status = (process / "stat").read_text().rsplit(")", 1)[1].split()
            pages += int((process / "statm").read_text().split()[1]) if int(status[3]) == session else 0
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def watched() -> Iterator[Watch]:
    cloud = running()
    assert cloud is not None
    watch, done = Watch(cloud.pid), threading.Event()

    def keep_looking() -> None:
        while not done.wait(2.0):
            watch.look()

    thread = threading.Thread(target=keep_looking)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()
        watch.look()


def picture() -> bytes:
    file = io.BytesIO()
    Image.effect_mandelbrot((800, 600), (-2, -1.5, 1, 1.5), 40).convert("RGB").save(file, "JPEG", quality=85)
    return file.getvalue()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_uploads_at_once_end_ready_within_the_bound_of_sandboxes(stack: Settings, outputs: dict[str, str]) -> None:
    body, bucket = picture(), settings().bucket("uploads")
    made = [f"load-{uuid.uuid4().hex[:12]}" for _ in range(UPLOADS)]
    s3 = boto3.client("s3")

    with watched() as watch, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda post_id: application.new_post("u-load", "many", post_id=post_id), made))
        list(
            pool.map(
                lambda post_id: s3.put_object(Bucket=bucket, Key=f"uploads/u-load/{post_id}/a.jpg", Body=body), made
            )
        )

        def statuses() -> Counter[str]:
            found = [post for post in posts.get_many(made) if isinstance(post, Post)]
            return Counter(post.media.status if post.media else "waiting" for post in found)

        eventually(lambda: statuses()["ready"] == UPLOADS, within=WITHIN, every=2.0)

    print(
        f"\n{UPLOADS} uploads: {watch.sandboxes} sandboxes, {watch.disk / 1024**3:.1f} GB of disk, "
        f"{watch.memory / 1024**3:.1f} GB of memory"
    )
    letters = take(outputs["MediaDeadLetterQueueUrl"], lambda letter: any(one in letter["Body"] for one in made))
    assert letters == []
    assert watch.sandboxes <= sandboxes()
    assert watch.disk <= sandboxes() * SANDBOX_BYTES
