"""The open files on which the worker lives: all that it will ever have, in the form that PyAV takes them."""

from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from video.job import OUTPUTS, POSTER, Job


@dataclass(frozen=True, slots=True)
class Files:
    """The source and the outputs. `mp4_again` reads what `mp4` wrote, to move the index to the front."""

    source: FileIO
    mp4: FileIO
    mp4_again: FileIO
    webp: FileIO
    png: FileIO

    @classmethod
    def open(cls, job: Job) -> "Files":
        folder = Path(job.folder)
        mp4, webp = (folder / OUTPUTS[name][0] for name in ("video", "preview"))
        return cls(
            source=FileIO(job.source),
            mp4=FileIO(mp4, "w"),
            mp4_again=FileIO(mp4),
            webp=FileIO(webp, "w"),
            png=FileIO(folder / POSTER, "w"),
        )


class Reader:
    """What PyAV needs of an open file to read it from its start. No close(): the file outlives the reading."""

    def __init__(self, file: FileIO) -> None:
        file.seek(0)
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


class Writer:
    """What PyAV needs of an open file to write it anew."""

    def __init__(self, file: FileIO) -> None:
        file.seek(0)
        file.truncate()
        self._write, self.seek, self.tell = file.write, file.seek, file.tell

    def write(self, data: bytes) -> int:
        # A file near its limit takes a part, and the muxer would not notice.
        rest = memoryview(data)
        while rest:
            rest = rest[self._write(rest) :]
        return len(data)
