"""The open files on which the worker lives: all that it will ever have, in the form that PyAV takes them."""

from dataclasses import dataclass
from io import FileIO

from sandbox.report import write_all


@dataclass(frozen=True, slots=True)
class Files:
    """The source and the outputs, in the order in which the supervisor hands them over.

    `mp4_again` reads what `mp4` wrote, to move the index to the front.
    """

    source: FileIO
    mp4: FileIO
    mp4_again: FileIO
    webp: FileIO
    png: FileIO


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
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def write(self, data: bytes) -> int:
        return write_all(self._file, data)  # the muxer would not notice that a file took a part
