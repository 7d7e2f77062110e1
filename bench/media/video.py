"""Compares the cost of a clip with that of the ffmpeg command line for the same three outputs: it should not be higher.

    python -m bench.media.video [--rounds 5]

Makes its clips and renders each with functions/media/video, and with one ffmpeg command that makes the same from one
decoding (an MP4 with the same encoder settings, a poster by the `thumbnail` filter, a preview), with ffmpeg's own
choice of threads for all but the encoder. Both run alternately on two cores. The figures are wall time and CPU time of
all processes, startup included, and the peak memory of the largest one. The wall time is that of the fastest round,
since other load can only add to it. CPU ratios are medians of pairs. `video alone` is ffmpeg without poster and
preview: a floor. Only the ratios are comparable between machines.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench import tables
from video.film import ENCODER

FUNCTION = tables.ROOT / "functions" / "media"
RENDER = """
import sandbox
sandbox.start()  # as the task does, before anything else
import sys, pathlib, video
video.render(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), seconds=600)
"""
ENCODING = [
    *("-c:v", "libx264", *(word for name, value in ENCODER.items() for word in (f"-{name}:v", value)), "-g", "150"),
    *("-c:a", "aac", "-b:a", "128k", "-map_metadata", "-1", "-movflags", "+faststart"),
]


@dataclass(frozen=True)
class Source:
    """A clip to make: seconds of FFmpeg's moving test picture, with a tone."""

    name: str
    width: int
    height: int
    seconds: int
    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: tuple[str, ...] = ("-preset", "veryfast", "-crf", "20")


SOURCES = (
    Source("1080p30 H.264, 10 s", 1920, 1080, 10),
    Source("4K30 H.264, 3 s", 3840, 2160, 3),
    Source(
        "4K30 HEVC 10 bit, 3 s",
        3840,
        2160,
        3,
        "libx265",
        "yuv420p10le",
        ("-preset", "ultrafast", "-x265-params", "log-level=none"),
    ),
    Source("720p30 that suits, 10 s", 1280, 720, 10, options=("-preset", "veryfast", "-crf", "30")),
)


@dataclass(frozen=True)
class Cost:
    """The cost of a process and its children: seconds, and the MB of the largest process."""

    wall: float
    cpu: float
    peak: float


def make(source: Source, path: Path) -> None:
    picture = f"testsrc2=size={source.width}x{source.height}:rate=30:duration={source.seconds}"
    tone = f"sine=frequency=440:sample_rate=48000:duration={source.seconds}"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone]
    encoding = ["-c:v", source.codec, "-pix_fmt", source.pixels, *source.options, "-c:a", "aac"]
    subprocess.run([*command, *encoding, str(path)], check=True)


def ours(clip: Path, out: Path) -> list[str]:
    return [sys.executable, "-c", RENDER, str(clip), str(out)]


def ffmpeg(clip: Path, out: Path) -> list[str]:
    """Three outputs from one decoding. Poster and preview use the scaled frames, the cheapest way."""
    graph = (
        "[0:v]scale=1280:720,format=yuv420p,split=3[v][p][s];"
        "[p]trim=duration=3,fps=10,scale=320:180[w];[s]fps=2,thumbnail=16[t]"
    )
    return [
        *("ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(clip), "-filter_complex", graph),
        *("-map", "[v]", "-map", "0:a", *ENCODING, str(out / "video.mp4")),
        *("-map", "[w]", "-c:v", "libwebp_anim", "-quality", "50", "-compression_level", "2", "-loop", "0"),
        *(str(out / "preview.webp"), "-map", "[t]", "-frames:v", "1", str(out / "poster.png")),
    ]


def ffmpeg_alone(clip: Path, out: Path) -> list[str]:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(clip), "-vf", "scale=1280:720,format=yuv420p"]
    return [*command, *ENCODING, str(out / "video.mp4")]


def ffmpeg_copy(clip: Path, out: Path) -> list[str]:
    """For a clip whose stream can be copied: it is decoded only for the preview's three seconds and the poster."""
    graph = "[0:v]split=2[p][s];[p]fps=10,scale=320:180[w];[s]fps=2,thumbnail=6[t]"
    source = ["-i", str(clip), "-t", "3", "-i", str(clip)]
    return [
        *("ffmpeg", "-nostdin", "-v", "error", "-y", *source, "-filter_complex", graph.replace("[0:v]", "[1:v]")),
        *("-map", "0:v", "-map", "0:a", "-c", "copy", "-map_metadata", "-1", "-movflags", "+faststart"),
        *(str(out / "video.mp4"), "-map", "[w]", "-c:v", "libwebp_anim", "-quality", "50", "-compression_level", "2"),
        *("-loop", "0", str(out / "preview.webp"), "-map", "[t]", "-frames:v", "1", str(out / "poster.png")),
    ]


def run(command: list[str]) -> Cost:
    began = time.perf_counter()
    # In its own session, like our sandbox: Linux divides a busy machine's cores among sessions.
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(FUNCTION)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"ended with {process.returncode}: {' '.join(command)[:300]}")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares the cost of a clip with that of the ffmpeg command.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout.splitlines()[0])
    print(f"PyAV {version('av')}, {os.process_cpu_count()} processors, {rounds} rounds")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        clip, out = Path(folder, "clip.mov"), Path(folder, "out")
        out.mkdir()
        for source in SOURCES:
            make(source, clip)
            suits = "suits" in source.name
            ways = {"ours": ours, "ffmpeg, the same": ffmpeg_copy if suits else ffmpeg}
            if not suits:
                ways["ffmpeg, video alone"] = ffmpeg_alone
            costs: dict[str, list[Cost]] = {name: [] for name in ways}
            for number in range(rounds + 1):
                for name, command in ways.items():
                    cost = run(command(clip, out))
                    if number:  # the first round warms up
                        costs[name].append(cost)
            for name, measured in costs.items():
                rows.append(row(source.name if name == "ours" else "", name, measured, costs["ours"]))
    header = ["clip", "way", "wall s", "CPU s", "MB", "ours / it: wall", "CPU (range)", "MB"]
    tables.show("video", tables.markdown(header, rows))


def row(clip: str, name: str, measured: Sequence[Cost], ours: Sequence[Cost]) -> list[str]:
    wall, our_wall = (min(cost.wall for cost in costs) for costs in (measured, ours))
    cpu, peak = (statistics.median(getattr(cost, figure) for cost in measured) for figure in ("cpu", "peak"))
    cells = [clip, name, f"{wall:.2f}", f"{cpu:.2f}", f"{peak:.0f}"]
    if measured is ours:
        return [*cells, "", "", ""]
    cpus = [mine.cpu / theirs.cpu for mine, theirs in zip(ours, measured, strict=True)]
    peaks = [mine.peak / theirs.peak for mine, theirs in zip(ours, measured, strict=True)]
    spread = f"{statistics.median(cpus):.2f} ({min(cpus):.2f}-{max(cpus):.2f})"
    return [*cells, f"{our_wall / wall:.2f}", spread, f"{statistics.median(peaks):.2f}"]


if __name__ == "__main__":
    main()
