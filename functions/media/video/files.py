"""The worker's open files, the only ones it can use, in the form that PyAV accepts."""

from dataclasses import dataclass
from io import FileIO

from sandbox.report import write_all


@dataclass(frozen=True, slots=True)
class Files:
    """The source and the outputs, in the order in which the supervisor passes them.

    `mp4_again` reads what `mp4` wrote, to move the index to the front.
    """

    source: FileIO
    mp4: FileIO
    mp4_again: FileIO
    webp: FileIO
    png: FileIO


class Reader:
    """The methods PyAV needs to read an open file from its start. No close(): the file outlives the reading."""

    def __init__(self, file: FileIO) -> None:
        file.seek(0)
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


class Writer:
    """The methods PyAV needs to overwrite an open file."""

    def __init__(self, file: FileIO) -> None:
        file.seek(0)
        file.truncate()
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def write(self, data: bytes) -> int:
        return write_all(self._file, data)  # the muxer would not notice a partial write
