"""A decoder's child may crash, hang, lie or start others: the function says so, and the next upload is well."""

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from PIL import Image

import pictures
import sandbox
from pictures import rendering
from pictures.recipes import ANIMATED, RECIPES, content_hash
from sandbox import OutOfTime, Rendition, Unavailable, Unfinished, confinement, supervisor
from social.refusals import Rejected
from tests.support.patience import PATIENCE
from tests.support.stills import ANIMATIONS, COLOURS, STILLS, gradient, plain, reel, still
from tests.unit.media.conftest import Clock

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which the server and its children can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def child(modules: Path) -> Iterator[Run]:
    """Runs a body of Python as a child's work, with `job`, `files` and `report`; `before` is its module's top."""
    sandbox.stop()
    numbers = count()

    def run(body: str, before: str = "", files: Sequence[BinaryIO] = (), **options: Any) -> dict[str, Any]:
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        imports = "import ctypes, os, time\nfrom sandbox.report import write_all"
        name = f"some_work_{next(numbers)}"
        (modules / f"{name}.py").write_text(f"{imports}\n{before}\ndef work(job, files, report):\n{lines}\n")
        return sandbox.run(name, {}, files, memory=1 << 30, output_bytes=1 << 20, seconds=600, **options)

    yield run
    sandbox.stop()


def test_a_crash_refuses_the_file_and_the_next_child_works(child: Run) -> None:
    with pytest.raises(Rejected) as refused:
        child("ctypes.string_at(0)")

    assert refused.value.code == "decoder_crashed"
    assert "SIGSEGV" in refused.value.detail
    assert child("return {'well': 1}") == {"well": 1}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise RuntimeError('no such codec')", "no such codec"),
        ("os._exit(3)", "ended with 3"),
        ("return 1", "invalid report"),
    ],
)
def test_a_child_that_fails_is_tried_again_and_says_why(body: str, why: str, child: Run) -> None:
    with pytest.raises(Unfinished, match=why) as failed:
        child(body)
    assert type(failed.value) is Unfinished


@pytest.mark.parametrize(("before", "body"), [("import nothing_of_that_name", ""), ("", "raise OSError(28, 'full')")])
def test_a_child_that_cannot_start_or_has_no_disk_fails_with_the_reason(before: str, body: str, child: Run) -> None:
    with pytest.raises(Unavailable, match=r"nothing_of_that_name|full"):
        child(body or "pass", before=before)


def test_a_refusal_is_short_however_much_of_the_file_it_quotes(child: Run) -> None:
    with pytest.raises(Rejected) as refused:
        child(
            "raise Rejected(Code.DAMAGED, 'it refers to ' + 'x' * 100_000)",
            before="from social.refusals import Code, Rejected",
        )
    assert len(refused.value.detail) == supervisor._DETAIL_LIMIT


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGXCPU])
def test_a_child_that_the_system_stops_is_out_of_time(number: signal.Signals, child: Run) -> None:
    with pytest.raises(OutOfTime):
        child(
            "report.known({'pid': os.getpid()})\ntime.sleep(600)",
            on_known=lambda fields: os.kill(fields["pid"], number),
        )


FORKS = """
if os.fork() == 0:
    os.setsid()  # out of the child's group
    os.closerange(3, 100)
    if os.fork():
        os._exit(0)
    open({pids!r}, "a").write(f"{{os.getpid()}} ")
    time.sleep(600)
while not os.path.exists({pids!r}):
    time.sleep(0.01)
open({pids!r}, "a").write(f"{{os.getpid()}} ")
"""


@pytest.mark.parametrize("ending", ["report.progress(0.5)\ntime.sleep(600)", "os._exit(3)"], ids=["hangs", "ends"])
def test_a_childs_own_processes_end_with_it(
    ending: str, child: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"

    with pytest.raises(Unfinished) as failed:
        child(ending, before=FORKS.format(pids=str(pids)), on_progress=Clock(monkeypatch).expire)

    assert isinstance(failed.value, OutOfTime) == ("sleep" in ending)
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []


def test_a_server_that_was_killed_under_a_child_fails_it_and_is_replaced(child: Run) -> None:
    def kill(_: dict[str, Any]) -> None:
        sandbox.start()._process.kill()

    with pytest.raises(Unavailable, match="server"):
        child("report.known({})\ntime.sleep(600)", on_known=kill)
    assert child("return {'well': 1}") == {"well": 1}


def test_a_server_that_ended_between_two_children_is_replaced_and_fails_none(child: Run) -> None:
    server = sandbox.start()
    server._process.kill()
    server._process.wait()

    assert child("return {'well': 1}") == {"well": 1}
    assert sandbox.start() is not server


def test_the_server_ends_with_the_function(child: Run) -> None:
    child("return {}")
    server = sandbox.start()
    server._here.close()
    assert server._process.wait() == 0
    supervisor._running.clear()


SLOW = """
import os, time

IMPORTED_BY = os.getpid()
deadline = time.monotonic() + {patience}
while not os.path.exists({marker!r}):
    if time.monotonic() > deadline:
        raise TimeoutError("imported before the first child could report")
    time.sleep(0.01)

def work(job, files, report):
    return {{"imported here": os.getpid() == IMPORTED_BY}}
"""
"""A preloaded module whose import lasts until `marker` exists."""


@pytest.fixture
def marker(modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server that has its first job when it has started, and that preloads `slow`."""
    marker = tmp_path / "marker"
    (modules / "slow.py").write_text(SLOW.format(marker=str(marker), patience=PATIENCE))
    (modules / "busy_server.py").write_text(
        "import select, sys\nfrom sandbox import server\nselect.select([int(sys.argv[1])], [], [])\nserver.main()\n"
    )
    monkeypatch.setattr(supervisor, "SERVER", "busy_server")
    monkeypatch.setattr(supervisor, "PRELOADED", ("slow",))
    return marker


def test_a_first_child_does_not_wait_for_modules_that_it_does_not_need(child: Run, marker: Path) -> None:
    made = child("report.known({})\nreturn {'first': 1}", on_known=lambda _: marker.touch())

    assert made == {"first": 1}
    # And the next child has them from the server.
    assert child("import sys\nreturn {'there': 'slow' in sys.modules}") == {"there": True}


def test_a_first_child_of_a_preloaded_module_has_it_from_the_server(child: Run, marker: Path) -> None:
    marker.touch()

    assert sandbox.run("slow", {}, [], memory=1 << 30, output_bytes=1, seconds=600) == {"imported here": False}


@pytest.mark.parametrize(
    "sent",
    [
        "not json",
        "[1, 2]",
        '{"rejected": {"codes": 1}}',
        '{"rejected": {"code": "new", "detail": "", "limit": null}}',
        '{"progress": "x"}',
        '{"progress": 1e999}',
        '{"progress": NaN}',
        "[" * 100_000,
        '{"made": [1]}',
        '{"known": 1}',
        '{"part": [1]}',
        "x" * 3_000_000,
    ],
)
def test_an_invalid_report_by_a_child_is_refused(sent: str, child: Run) -> None:
    text = f"rest = memoryview({sent!r}.encode() + b'\\n')\nwhile rest:\n    rest = rest[os.write(report._pipe, rest):]"

    with pytest.raises(Unfinished, match=r"invalid report|too many reports"):
        child(text, on_progress=round)


def test_a_child_that_repeats_what_it_knows_is_stopped(child: Run) -> None:
    """Each report may cost a write."""
    received: list[dict[str, Any]] = []

    with pytest.raises(Unfinished, match="sends too many reports"):
        child("for number in range(9):\n    report.known({'number': number})\nreturn {}", on_known=received.append)
    assert received == [{"number": 0}, {"number": 1}]


def test_a_child_that_reports_more_files_than_it_has_is_stopped(child: Run) -> None:
    received: list[dict[str, Any]] = []

    with pytest.raises(Unfinished, match="sends too many reports"):
        child("while True:\n    report.part({'number': 0})", on_part=received.append)
    assert len(received) == supervisor.MOST_PARTS


def test_neither_the_child_nor_its_server_has_the_functions_environment(
    child: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.stop()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    seen = child("return {'environment': dict(os.environ)}")["environment"]

    assert set(seen) <= {"PYTHONPATH", "LD_LIBRARY_PATH", "LC_CTYPE", *supervisor.MALLOC}


def test_each_bound_is_a_limit_of_the_child() -> None:
    names = ("DATA", "CPU", "FSIZE", "NOFILE", "CORE")
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        confinement._limit(confinement.Bounds(memory=700 << 20, output_bytes=5 << 20, seconds=30))
        limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names}
        os.write(writer, json.dumps(limits).encode())
        os._exit(0)
    os.waitpid(pid, 0)

    seen = json.loads(os.read(reader, 4096))

    assert seen == {
        "DATA": [700 << 20] * 2,
        "CPU": [30, 31],
        "FSIZE": [5 << 20] * 2,
        "NOFILE": [0, 0],
        "CORE": [0, 0],
    }


@pytest.mark.parametrize(
    ("body", "code"),
    [("bytearray(2 << 30)", "too_much_memory"), ("write_all(files[0], bytes(2 << 20))", "output_too_large")],
)
def test_a_child_over_a_bound_is_the_files_fault(body: str, code: str, child: Run, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, pytest.raises(Rejected) as refused:
        child(
            f"from_there = write_all\n{body.replace('files[0].write(', 'write_all(files[0], ')}\nreturn {{}}",
            before="from sandbox.report import write_all",
            files=[out],
        )

    assert refused.value.code == code


def test_a_confinement_layer_that_the_kernel_lacks_is_logged(
    child: Run, modules: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SERVER", "some_server")
    (modules / "some_server.py").write_text(
        "import errno\nfrom sandbox import confinement, server\n"
        "def refused(*_):\n    raise OSError(errno.ENOSYS, 'no such call')\n"
        "confinement.LAYERS = {**confinement.LAYERS, 'seccomp': refused}\nserver.main()\n"
    )

    with caplog.at_level(logging.WARNING):
        assert child("return {'well': 1}") == {"well": 1}
        assert child("return {'well': 2}") == {"well": 2}

    (line,) = [record.getMessage() for record in caplog.records]
    assert "seccomp" in line
    assert "not implemented" in line


REFUSING = """
import errno, logging, sys
from pathlib import Path
from seccompy import Action, ArgCmp, CmpOp, Filter
import pictures

refusing = Filter(default=Action.ALLOW)
for call in sys.argv[2:]:
    name, _, option = call.partition(" ")
    refusing.errno(name, errno.EPERM, args=[ArgCmp(0, CmpOp.EQ, int(option))] if option else [])
refusing.load()
logging.basicConfig(format="%(message)s")
folder = Path(sys.argv[1])
print(*sorted(pictures.render(folder / "source", folder, seconds=600).renditions))
"""


PRCTL = [f"prctl {option}" for option in (confinement._PR_SET_DUMPABLE, confinement._PR_SET_CHILD_SUBREAPER)]
PDEATHSIG = f"prctl {confinement._PR_SET_PDEATHSIG}"


@pytest.mark.parametrize(
    "calls", [["prctl"], ["prctl", "seccomp"], *([one] for one in (*PRCTL, PDEATHSIG))], ids=" and ".join
)
def test_a_system_that_refuses_prctl_as_lambda_does_fails_no_upload(calls: list[str], tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(still("JPEG", gradient(90, 60)))

    done = subprocess.run(
        [sys.executable, "-c", REFUSING, str(tmp_path), *calls],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )

    assert done.stdout.split() == sorted(recipe.name for recipe in RECIPES)
    logged = [line.partition(": Operation not permitted")[0] for line in done.stderr.splitlines()]
    assert logged == [f"decoders run without {call.partition(' ')[0]}" for call in calls]


# Pictures


@pytest.mark.parametrize("kind", [*STILLS, *ANIMATIONS])
def test_a_confined_child_renders_the_same_bytes_as_this_process(kind: str, tmp_path: Path) -> None:
    content = reel(kind, COLOURS, (100,) * len(COLOURS)) if kind in ANIMATIONS else still(kind, gradient(900, 600))
    (tmp_path / "source").write_bytes(content)
    alone = rendering.render(content)

    received: list[pictures.Known] = []

    made = pictures.render(tmp_path / "source", tmp_path, seconds=600, on_known=received.append)

    assert received == [made.known]
    assert asdict(made.known).items() <= asdict(alone).items()
    assert made.content_hash == content_hash(BytesIO(content))
    assert list(made.renditions) == [rendition.name for rendition in alone.renditions]
    for rendition in alone.renditions:
        published = made.renditions[rendition.name]
        assert published.path.read_bytes() == rendition.data
        assert published.path.suffix == f".{rendition.extension}"
        assert (published.width, published.height, published.bytes, published.content_type) == (
            rendition.width,
            rendition.height,
            len(rendition.data),
            rendition.content_type,
        )


def test_a_refusal_of_the_child_is_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(still("JPEG", gradient(900, 600))[:500])

    with pytest.raises(Rejected) as refused:
        pictures.render(tmp_path / "source", tmp_path, seconds=600)
    assert refused.value.code == "truncated"


def test_a_picture_whose_rendition_finds_a_full_disk_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(still("JPEG", gradient(900, 600)))
    (tmp_path / "w320.draft").symlink_to("/dev/full")

    with pytest.raises(Unavailable, match="No space left"):
        pictures.render(tmp_path / "source", tmp_path, seconds=600)


def test_a_picture_whose_rendition_is_too_large_is_refused_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(still("JPEG", gradient(900, 600)))
    monkeypatch.setattr("pictures.supervisor.OUTPUT_BYTES", 200)

    with pytest.raises(Rejected) as refused:
        pictures.render(tmp_path / "source", tmp_path, seconds=600)
    assert refused.value.code == "output_too_large"


def test_the_recipes_of_the_deployment_reach_the_child(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(still("PNG", gradient(900, 600)))
    recipes = pictures.read_recipes("tile:64:square:jpeg,wide:400x300:avif:quality=50,best:800:quality=95,animated:90")

    made = pictures.render(tmp_path / "source", tmp_path, seconds=600, recipes=recipes)
    usual = pictures.render(tmp_path / "source", tmp_path, seconds=600)

    assert {name: (each.width, each.height, each.content_type) for name, each in made.renditions.items()} == {
        "tile": (64, 64, "image/jpeg"),
        "wide": (400, 267, "image/avif"),
        "best": (800, 533, "image/webp"),
    }
    for name, format_ in (("tile", "JPEG"), ("wide", "AVIF"), ("best", "WEBP")):
        with Image.open(made.renditions[name].path) as picture:
            assert picture.format == format_
    assert made.content_hash != usual.content_hash


def test_facts_about_a_picture_are_reported_before_its_renditions_are_made(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def hear(known: pictures.Known) -> None:
        received.append(known)
        raise Enough  # nothing would come of it, if it were reported with the result

    (tmp_path / "source").write_bytes(still("PNG", gradient(900, 600)))
    received: list[pictures.Known] = []

    with pytest.raises(Enough):
        pictures.render(tmp_path / "source", tmp_path, seconds=600, on_known=hear)
    (known,) = received
    assert (known.kind, known.width, known.height) == ("image", 900, 600)
    assert known.placeholder


def test_each_file_is_published_while_the_next_ones_are_made(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def take(content_hash: str, name: str, made: Rendition) -> None:
        taken.append((content_hash, name, made.path.read_bytes()[:4]))
        raise Enough  # nothing would come of it, if it were reported with the result

    content = still("PNG", gradient(900, 600))
    (tmp_path / "source").write_bytes(content)
    taken: list[tuple[str, str, bytes]] = []

    with pytest.raises(Enough):
        pictures.render(tmp_path / "source", tmp_path, seconds=600, on_made=take)
    ((digest, name, head),) = taken
    assert digest == content_hash(BytesIO(content))
    assert name in {recipe.name for recipe in RECIPES}
    assert head in (b"RIFF", b"\xff\xd8\xff\xe0", b"\0\0\0 ")


def test_a_published_file_cannot_be_changed_by_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is checked and put while the child still runs, and still holds its own."""

    def run(_: str, __: object, opened: Any, **options: Any) -> dict[str, Any]:
        options["on_known"](KNOWN)
        for part, recipe, file in zip(PARTS, RECIPES, opened[1:], strict=False):
            file.write(HEADS[recipe.encoding])
            file.flush()
            options["on_part"](part)
            file.seek(0)
            file.write(b"<!doctype html><script>")
            file.flush()
        return {}

    (tmp_path / "source").write_bytes(b"x")
    monkeypatch.setattr(sandbox, "run", run)
    made = pictures.render(tmp_path / "source", tmp_path, seconds=600)
    for recipe in RECIPES:
        assert made.renditions[recipe.name].path.read_bytes() == HEADS[recipe.encoding]


def test_limits_reach_the_child(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(still("PNG", plain(COLOURS[0], 64, 64)))

    with pytest.raises(Rejected) as refused:
        pictures.render(tmp_path / "source", tmp_path, seconds=600, limits=pictures.Limits(pixels=64 * 63))
    assert refused.value.code == "too_many_pixels"


def test_the_function_loads_no_decoder() -> None:
    """Hostile bytes cannot be decoded where the credentials are: nothing there could."""
    code = """
import sys
import process_media_upload
print([name for name in ("PIL", "av", "pi_heif", "seccompy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


KNOWN: dict[str, Any] = {
    "kind": "image",
    "width": 2,
    "height": 2,
    "placeholder": "0" * 28,
    "dominant_colour": "#ffffff",
}
PARTS: list[dict[str, Any]] = [{"number": at, "width": 2, "height": 2} for at in range(len(RECIPES))]
ALL = [*PARTS, {"number": len(RECIPES), "width": 2, "height": 2}]
HEADS = {
    "WEBP": b"RIFF\0\0\0\0WEBPVP8 ",
    "JPEG": b"\xff\xd8\xff\xe0",
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
}


@pytest.mark.parametrize(
    ("known", "parts", "files"),
    [
        (None, [], {}),
        (None, PARTS, {}),
        ({}, PARTS, {}),
        (KNOWN | {"kind": "video"}, PARTS, {}),
        (KNOWN | {"kind": ["image"]}, PARTS, {}),
        (KNOWN | {"placeholder": "<script>"}, PARTS, {}),
        (KNOWN | {"placeholder": None}, PARTS, {}),
        (KNOWN | {"dominant_colour": "red; x"}, PARTS, {}),
        (KNOWN | {"width": 1e400}, PARTS, {}),
        (KNOWN | {"width": True}, PARTS, {}),
        (KNOWN | {"more": 1}, PARTS, {}),
        (KNOWN, [], {}),
        (KNOWN, PARTS[1:], {}),
        (KNOWN, ALL, {}),
        (KNOWN, [*PARTS, PARTS[0]], {}),
        (KNOWN, [{}], {}),
        (KNOWN, [PARTS[0] | {"number": -1}], {}),
        (KNOWN, [PARTS[0] | {"number": len(RECIPES) + 1}], {}),
        (KNOWN, [PARTS[0] | {"number": True}], {}),
        (KNOWN, [PARTS[0] | {"width": "2"}], {}),
        (KNOWN, [PARTS[0] | {"height": 0}], {}),
        (KNOWN, PARTS, {"thumbnail": b"<!doctype html><script>"}),
        (KNOWN, PARTS, {"w1080_jpeg": HEADS["WEBP"]}),
        (KNOWN | {"kind": "animation"}, ALL, {"animated": b"<svg/>"}),
        (KNOWN | {"kind": "animation"}, PARTS, {}),
    ],
)
def test_a_decoder_that_misreports_a_picture_is_refused(
    known: dict[str, Any] | None,
    parts: list[dict[str, Any]],
    files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(_: str, __: object, opened: Any, **options: Any) -> dict[str, Any]:
        for recipe, file in zip((*RECIPES, ANIMATED), opened[1:], strict=True):
            file.write(wrong.get(recipe.name, HEADS[recipe.encoding]))
            file.flush()
        if report is not None:
            options["on_known"](report)
        for part in finished:
            options["on_part"](part)
        return {}

    (tmp_path / "source").write_bytes(b"x")
    monkeypatch.setattr(sandbox, "run", run)
    report: dict[str, Any] | None = KNOWN
    finished = PARTS
    wrong: dict[str, bytes] = {}
    assert pictures.render(tmp_path / "source", tmp_path, seconds=600).known.width == 2, "what is right is believed"

    report, finished, wrong = known, parts, files
    with pytest.raises(Unfinished, match=r"invalid report|did not report"):
        pictures.render(tmp_path / "source", tmp_path, seconds=600)
