"""Measures the slowest and the largest accepted uploads: CPU seconds and peak memory, format by format.

    python -m bench.media.limits [--only WORD] [--clips 0.02]

Each row is a file at a limit of its format, made here. It is rendered in its own process, under the decoders' memory
limit. CPU is the user and system time of that process, the peak its resident memory including the upload. Making the
files takes longer than rendering them, so a clip is made at a fraction of its limit (`--clips`), by repeating a dozen
frames, and its CPU time is scaled up.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pillow_heif
from av.video.frame import VideoFrame
from PIL import Image, ImageChops

from bench.tables import ROOT
from colours.light import HLG, PQ
from pictures.supervisor import MEMORY
from sandbox.supervisor import MALLOC
from video.job import Limits

STARTING = "import video.worker"
PICTURE = """
import pathlib, sys, pictures.worker
from pictures.rendering import render
made = render(pathlib.Path(sys.argv[1]).read_bytes())
print(made.kind)
"""
CLIP = """
import os, pathlib, sys, video.worker
from dataclasses import asdict
from io import FileIO
from sandbox.report import Report
from video.job import Limits
from video.rules import container_of
source, out = map(pathlib.Path, sys.argv[1:3])
outputs = [FileIO(out / name, mode) for name, mode in (("mp4", "w"), ("mp4", "r"), ("webp", "w"), ("png", "w"))]
job = {"container": container_of(source.read_bytes()[:64]), "limits": asdict(Limits())}
made = video.worker.work(job, [FileIO(source, "r"), *outputs], Report(os.open(os.devnull, os.O_WRONLY)))
print(made["duration"], "s")
"""


@dataclass(frozen=True)
class Row:
    """A kind of file, and the function that makes one at its limit."""

    name: str
    make: Callable[[Path], None]
    program: str = PICTURE


# --- pictures --------------------------------------------------------------------------------------------------------


def grain(width: int, height: int, mode: str = "RGB", strength: int = 6) -> Image.Image:
    """A gradient from dark to bright with a sensor's grain."""
    noise = np.random.default_rng(7).integers(-strength, strength + 1, (1024, 1024, len(mode)))
    light = np.asarray(Image.linear_gradient("L").resize((1024, 1024)).convert("RGB").convert(mode), np.int16)
    tile = np.clip(light.reshape(1024, 1024, -1) + noise, 0, 255).astype(np.uint8)
    if mode == "RGBA":
        tile[..., 3] = np.clip(tile[..., 3], 100, 254)
    whole = np.tile(tile, (-(-height // 1024), -(-width // 1024), 1))[:height, :width]
    return Image.fromarray(np.ascontiguousarray(whole[..., 0] if mode == "L" else whole))


def side(megapixels: float) -> int:
    return int((megapixels * 1e6) ** 0.5) // 2 * 2


def still(
    kind: str, megapixels: float, mode: str = "RGB", strength: int = 6, *, cut: int = 0, **options: Any
) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        out = BytesIO()
        grain(side(megapixels), side(megapixels), mode, strength).save(out, kind, **options)
        path.write_bytes(out.getvalue()[: len(out.getvalue()) - cut])

    return make


def heic(megapixels: float, bits: int = 8) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        pixels = grain(side(megapixels), side(megapixels), "RGBA")
        if bits == 8:
            made = pillow_heif.from_pillow(pixels)
        else:
            pillow_heif.options.SAVE_HDR_TO_12_BIT = True
            deep = np.asarray(pixels).astype(np.uint16) << 8
            made = pillow_heif.from_bytes("RGBA;16", pixels.size, deep.tobytes())
        made.save(path, quality=50, enc_params={"preset": "ultrafast"}, chroma=420 if bits == 8 else 444)

    return make


def animation(kind: str, mode: str, strength: int, **options: Any) -> Callable[[Path], None]:
    """1,000 moving frames, 300 megapixels in all."""

    def make(path: Path) -> None:
        first = grain(640, 468, mode, strength)
        others = [ImageChops.offset(first, 7 * at, 3 * at) for at in range(1, 1000)]
        first.save(path, kind, save_all=True, append_images=others, duration=40, **options)

    return make


def pictures() -> Iterator[Row]:
    progressive: dict[str, Any] = {"quality": 75, "progressive": True, "subsampling": 0}
    yield Row("JPEG, 220 megapixels", still("JPEG", 219.9, strength=20, quality=75))
    yield Row("JPEG, progressive, 4:4:4, 220", still("JPEG", 219.9, strength=12, **progressive))
    yield Row("JPEG, the same without its end, 116", still("JPEG", 116, strength=16, cut=2, **progressive))
    yield Row("PNG, RGBA, 174", still("PNG", 174, "RGBA", 0, compress_level=1))
    yield Row("APNG, 1,000 frames, 300", animation("PNG", "RGBA", 0, compress_level=1))
    yield Row("GIF, 174", still("GIF", 174, "L"))
    yield Row("GIF, 1,000 frames, 300", animation("GIF", "RGB", 0))
    yield Row("WebP, lossless, RGBA, 87", still("WEBP", 87, "RGBA", 2, lossless=True, method=0, quality=0))
    yield Row("WebP, lossy, RGBA, 87", still("WEBP", 87, "RGBA", quality=75, method=0))
    yield Row("WebP, 1,000 frames, 300", animation("WEBP", "RGBA", 3, quality=60, method=0))
    yield Row("AVIF, RGBA, 130", still("AVIF", 130, "RGBA", quality=60, speed=10))
    yield Row("AVIF, 1,000 frames, 300", animation("AVIF", "RGB", 6, quality=60, speed=10))
    yield Row("HEIC, RGBA, 130", heic(130))
    yield Row("HEIC, RGBA, 4:4:4, 12 bits, 78", heic(78, bits=12))


# --- clips -----------------------------------------------------------------------------------------------------------

HD, UHD = (1280, 720), (3840, 2160)


@dataclass(frozen=True)
class Clip:
    """Moving frames with grain, encoded by `codec`."""

    codec: str
    pixels: str
    size: tuple[int, int]
    rate: int
    transfer: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    def seconds(self) -> float:
        """The longest allowed duration of such a clip."""
        from video.source import ENCODING_WORK, MAPPING_WORK, MAX_FRAME_RATE

        shown = HD[0] * HD[1] * min(self.rate, MAX_FRAME_RATE)
        work = self.size[0] * self.size[1] * self.rate + shown * (ENCODING_WORK + MAPPING_WORK * bool(self.transfer))
        return min(Limits().seconds, Limits().work / work)

    def frames(self) -> Iterator[VideoFrame]:
        wide = np.asarray(grain(self.size[0] + 128, self.size[1]), np.int16)
        chance = np.random.default_rng(1)
        for number in range(12):
            noise = chance.integers(-4, 5, (self.size[1], self.size[0], 1))
            seen = np.clip(wide[:, 8 * number : 8 * number + self.size[0]] + noise, 0, 255).astype(np.uint8)
            frame = VideoFrame.from_ndarray(seen, format="rgb24").reformat(format=self.pixels)
            if self.transfer:
                frame.color_trc, frame.color_primaries, frame.colorspace = self.transfer, 9, 9
            frame.pts = number
            yield frame

    def write(self, path: Path, seconds: float) -> None:
        with av.open(str(path), "w", format="webm" if self.codec == "libsvtav1" else "mov") as out:
            stream = cast("av.VideoStream", out.add_stream(self.codec, self.rate, dict(self.options)))
            stream.width, stream.height = self.size
            stream.pix_fmt = self.pixels
            context = stream.codec_context
            if self.transfer:
                context.color_trc, context.color_primaries, context.colorspace = self.transfer, 9, 9
            packets = [packet for frame in self.frames() for packet in stream.encode(frame)] + stream.encode(None)
            step = (packets[1].pts or 0) - (packets[0].pts or 0)
            for number in range(round(seconds * self.rate)):
                packet = packets[number % len(packets)]
                again: Any = av.Packet(bytes(packet))
                again.stream, again.time_base, again.is_keyframe = stream, packet.time_base, packet.is_keyframe
                again.pts = again.dts = number * step
                again.duration = step
                out.mux(again)


def clips(part: float) -> Iterator[Row]:
    x264 = {"preset": "ultrafast", "tune": "zerolatency", "crf": "26"}
    x265 = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=0"}
    for name, clip in {
        "H.264, 4K, 30 a second": Clip("libx264", "yuv420p", UHD, 30, options=x264),
        "HEVC, 10 bits, 4K, 30": Clip("libx265", "yuv420p10le", UHD, 30, options=x265),
        "HEVC, HLG, 4K, 30": Clip("libx265", "yuv420p10le", UHD, 30, HLG, x265),
        "HEVC, HLG, 720p, 60": Clip("libx265", "yuv420p10le", HD, 60, HLG, x265),
        "HEVC, PQ, 720p, 60": Clip("libx265", "yuv420p10le", HD, 60, PQ, x265),
        "AV1, 10 bits, 4K, 30": Clip("libsvtav1", "yuv420p10le", UHD, 30, options={"preset": "12"}),
    }.items():
        seconds = clip.seconds()
        yield Row(f"{name}, {seconds:.0f} s", partial(clip.write, seconds=part * seconds), CLIP)


# --- measuring -------------------------------------------------------------------------------------------------------


def made(row: Row, path: Path) -> bool:
    """Makes the file in a separate process, which frees its memory. False if that failed; the process says why."""
    process = multiprocessing.get_context("fork").Process(target=row.make, args=(path,))
    process.start()
    process.join()
    return process.exitcode == 0


def cost(program: str, source: Path, folder: Path) -> tuple[int, float, float, str]:
    """(Exit status, CPU seconds, peak MiB, last output line)."""
    memory = MEMORY if program is PICTURE else Limits().memory
    environment = {**os.environ, **MALLOC, "PYTHONPATH": f"{ROOT / 'functions' / 'media'}{os.pathsep}{ROOT / 'shared'}"}
    command = ["prlimit", f"--data={memory}", sys.executable, "-c", program, str(source), str(folder)]
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        lines = output.read().strip().splitlines() or [""]
    return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, lines[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the slowest and the largest accepted uploads.")
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument(
        "--clips", type=float, default=0.02, help="the fraction of a clip's longest duration that is made"
    )
    options = parser.parse_args()
    print(f"{'upload':40}{'MiB':>6}{'CPU s':>8}{'peak MiB':>10}")
    with tempfile.TemporaryDirectory() as name:
        _, start, _, _ = cost(STARTING, Path(), Path(name))
    failed = []
    for row in (*pictures(), *clips(options.clips)):
        if options.only not in row.name:
            continue
        with tempfile.TemporaryDirectory() as name:
            source = Path(name) / "source"
            if not made(row, source):
                failed.append(f"{row.name} (cannot be made)")
                continue
            status, cpu, peak, last_line = cost(row.program, source, Path(name))
            if status:
                failed.append(f"{row.name} ({status})")
            if row.program is CLIP:
                cpu = start + (cpu - start) / options.clips
            print(f"{row.name:40}{source.stat().st_size / 2**20:6.0f}{cpu:8.1f}{peak:10.0f}   {last_line}", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
