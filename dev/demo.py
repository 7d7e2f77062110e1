"""`make run`: uploads the sample media with plain S3 puts and shows the deployed stack's renditions.

Each sample becomes a post of the user "demo". The upload's event invokes the media function; the post's `media` shows
when it is done. Renditions and one contact sheet are saved. Running it again uploads everything again.
"""

import os
import shutil
import sys
import textwrap
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nexus.errors import ConfigurationError
from ops.checkout import ROOT
from ops.problems import Problem
from ops.social.upload import Upload, ended, put, saved_as
from ops.social.upload import save as save_renditions
from samples.make import make
from social import application
from social.data import posts
from social.data.posts import Media, Post

FOLDER: Final = ROOT / ".local" / "demo"
USER: Final = "demo"
USERS: Final = {USER: "Demo", "demo-gone": "Whose Mailbox Is Gone"}
"""The users that the sample events in events/ refer to."""

SECONDS_TO_PROCESS: Final = 120
# An event starts a function at once. On AWS all would run in parallel; here they share this machine's cores.
AT_ONCE: Final = max(2, os.cpu_count() or 2)
# A post is updated just before its run settles. An upload in between would find no idle function and start one.
PAUSE: Final = 0.3

NEXT: Final = """
Next: make web                       # these runs in the browser
      make example                   # an application in the browser
      PATH="$PWD/.venv/bin:$PATH"
      nexus status                   # then: nexus upload FILE, nexus dlq list"""

TILE: Final = (340, 340)
PICTURE: Final = (320, 240)
MARGIN: Final = 10
COLUMNS: Final = 5
INK, DIM, PAPER, BACK, RED = "#f2f2f2", "#a0a8b4", "#232a33", "#171c22", "#e0796f"


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample in progress: the file, its upload, and its media after `seconds`."""

    path: Path
    upload: Upload
    sent_at: float = 0.0
    seconds: float = 0.0
    media: Media | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size


def main() -> int:
    """Runs the demo, from the samples to the contact sheet. Returns the exit code."""
    console = Console(highlight=False)
    try:
        register()
        with console.status("Making the sample media"):
            samples = make()
        warm_up(console, samples)
        done = process(console, samples)
        console.print(*tables(done))
        save(done)
    except Problem as error:
        Console(stderr=True, highlight=False).print(f"[red]{error}[/]", soft_wrap=True)
        return 1
    except ConfigurationError:
        Console(stderr=True).print('[red]No deployment is named: run `make run`, or eval "$(nexus env)" first[/]')
        return 1
    except (BotoCoreError, ClientError) as error:
        Console(stderr=True, highlight=False).print(
            f"[red]The stack does not respond as expected: {error}[/]", soft_wrap=True
        )
        return 1
    ready = [upload for upload in done if upload.media and upload.media.status == "ready"]
    console.print(
        f"{len(ready)} uploads became {sum(len(u.media.renditions) for u in ready if u.media)} renditions, "
        f"{len(done) - len(ready)} were refused. They are in {FOLDER.relative_to(ROOT)}/, "
        f"all on one page in {(FOLDER / 'contact-sheet.png').relative_to(ROOT)}",
        soft_wrap=True,
    )
    console.print(NEXT)
    return 0


# --- the users -----------------------------------------------------------------------------------------------------


def register() -> None:
    """Registers the samples' users if they do not exist."""
    for user_id, name in USERS.items():
        with suppress(ValueError):  # the user exists
            application.register(f"{user_id}@example.com", name, user_id=user_id)


def warm_up(console: Console, samples: Sequence[Path]) -> None:
    """Warms up the sandboxes with the smallest samples: no picture's time should include a cold start."""
    with console.status("Starting the media function"):
        process(Console(quiet=True), sorted(samples, key=lambda path: path.stat().st_size)[:AT_ONCE])


# --- upload and wait ---------------------------------------------------------------------------------------------


def process(console: Console, samples: Sequence[Path]) -> list[Sample]:
    """Uploads samples and waits until each is ready or rejected. Raises Problem if one takes too long."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        shown = progress.add_task("Uploading", total=len(samples))
        waiting = deque(_sample(path) for path in samples)
        order = [sample.upload.post_id for sample in waiting]
        posts.put_many([Post(post_id, USER, int(time.time())) for post_id in order], now=int(time.time()))
        under_way: dict[str, Sample] = {}
        done: dict[str, Sample] = {}
        while waiting or under_way:
            while waiting and len(under_way) < AT_ONCE:
                sample = waiting.popleft()
                put(sample.path, sample.upload)
                under_way[sample.upload.post_id] = replace(sample, sent_at=time.monotonic())
            time.sleep(0.05)
            for sample in list(_settled(under_way)):
                done[sample.upload.post_id] = sample
                del under_way[sample.upload.post_id]
            names = ", ".join(sample.name for sample in under_way.values())
            progress.update(shown, completed=len(done), description=names[:44] or "Done")
            if len(under_way) < AT_ONCE:
                time.sleep(PAUSE)
    return [done[post_id] for post_id in order]


def _sample(path: Path) -> Sample:
    """A sample for a new or recreated post, without an earlier upload."""
    post_id = f"demo-{path.stem}"
    return Sample(path, Upload(USER, post_id, f"uploads/{USER}/{post_id}/{path.name}", order_before=""))


def _settled(under_way: dict[str, Sample]) -> Iterator[Sample]:
    now = time.monotonic()
    for post_id, media in ended([sample.upload for sample in under_way.values()]).items():
        yield replace(under_way[post_id], media=media, seconds=now - under_way[post_id].sent_at)
    for sample in under_way.values():
        if now - sample.sent_at > SECONDS_TO_PROCESS:
            raise Problem(
                f"{sample.name} was not processed within {SECONDS_TO_PROCESS} s: `nexus inspect active` shows its run, "
                "or `nexus dlq list media` why it was given up; .local/cloud/cloud.log has the function's log"
            )


# --- show --------------------------------------------------------------------------------------------------------


def tables(done: Sequence[Sample]) -> Iterator[Table]:
    """Tables of the accepted uploads, with a row for each rendition, and of the refused ones, with the reason."""
    taken = _table("What the uploads became")
    for title in ("size", "bytes", "format", "seconds\nuntil ready"):
        taken.add_column(title, justify="left" if title == "format" else "right", no_wrap=True)
    refused = _table("What was refused")
    refused.add_column("seconds\nuntil refused", justify="right", no_wrap=True)
    refused.add_column("why")
    for upload in done:
        seconds, media = f"{upload.seconds:.2f}", upload.media
        if media is None or media.status == "rejected":
            refused.add_row(upload.name, seconds, Text(media.reason or "" if media else ""))
            continue
        size = f"{media.width} x {media.height}"
        taken.add_row(upload.name, size, f"{upload.bytes:,}", media.kind, seconds, style="bold", end_section=False)
        for name, made in media.renditions.items():
            taken.add_row(f"  {name}", f"{made.width} x {made.height}", f"{made.bytes:,}", made.content_type, "")
        taken.add_section()
    yield taken
    if refused.row_count:
        yield refused


def _table(title: str) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    made.add_column("upload", no_wrap=True)
    return made


# --- save --------------------------------------------------------------------------------------------------------


def save(done: Sequence[Sample]) -> None:
    """Writes every rendition to FOLDER/<upload>/ and all pictures to FOLDER/contact-sheet.png."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for upload in done:
        if upload.media and upload.media.renditions:
            save_renditions(upload.media, FOLDER / upload.path.stem)
    contact_sheet(done).save(FOLDER / "contact-sheet.png")


def contact_sheet(done: Sequence[Sample]) -> Image.Image:
    """A tile for each upload: its picture as a reader would see it, with its figures, or the reason for a refusal."""
    rows = -(-len(done) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE[0] + MARGIN, rows * TILE[1] + MARGIN), BACK)
    for place, upload in enumerate(done):
        across, down = place % COLUMNS, place // COLUMNS
        sheet.paste(_tile(upload), (across * TILE[0] + MARGIN, down * TILE[1] + MARGIN))
    return sheet


def _tile(upload: Sample) -> Image.Image:
    tile = Image.new("RGB", (TILE[0] - MARGIN, TILE[1] - MARGIN), PAPER)
    draw = ImageDraw.Draw(tile)
    bold, plain = ImageFont.load_default(17), ImageFont.load_default(14)
    top = PICTURE[1] + 14
    draw.text((MARGIN, top), upload.name, INK, bold)
    media = upload.media
    if media is None or media.status == "rejected":
        reason = textwrap.fill(media.reason or "" if media else "", 30)
        draw.multiline_text((tile.width / 2, PICTURE[1] / 2), reason, DIM, bold, anchor="mm", align="center", spacing=7)
        draw.text((MARGIN, top + 24), "rejected", RED, plain)
        return tile
    if (path := _picture_of(upload, media)) is not None:
        with Image.open(BytesIO(path.read_bytes())) as opened:
            picture = ImageOps.contain(opened.convert("RGBA"), PICTURE)
        corner = ((tile.width - picture.width) // 2, MARGIN + (PICTURE[1] - picture.height) // 2)
        tile.paste(picture, corner, picture)
    total = sum(rendition.bytes for rendition in media.renditions.values())
    draw.text(
        (MARGIN, top + 24), f"{media.kind}, {media.width} x {media.height}, {upload.bytes / 1024:,.0f} KiB", DIM, plain
    )
    draw.text(
        (MARGIN, top + 42),
        f"{len(media.renditions)} renditions, {total / 1024:,.0f} KiB, {upload.seconds:.1f} s",
        DIM,
        plain,
    )
    return tile


def _picture_of(upload: Sample, media: Media) -> Path | None:
    """The smallest uncropped picture that fills the tile, else the largest one."""
    width, height = media.width or 1, media.height or 1
    stills = {
        name: rendition
        for name, rendition in media.renditions.items()
        if rendition.content_type.startswith("image/")
        and abs(rendition.width * height - rendition.height * width) <= max(width, height)
    }
    if not stills:
        return None
    name, rendition = min(
        stills.items(), key=lambda entry: (entry[1].width < PICTURE[0], abs(entry[1].width - PICTURE[0]))
    )
    return saved_as(FOLDER / upload.path.stem, name, rendition)


if __name__ == "__main__":
    sys.exit(main())
