"""Where the files lie of a data set that is read in part: on the Hub, or on this machine."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from lightlm.data.files.rows import SourceFile
from lightlm.data.hub import HubFiles, download_file, open_remote
from lightlm.json_object import JsonObject


class Opened(Protocol):
    """A file of which parts are read: its `size` in bytes, and the `num_bytes` that were read."""

    size: int
    num_bytes: int

    def open(self) -> BinaryIO:
        """Return its bytes from the start, not buffered."""
        ...


@dataclass
class LocalFile:
    """A file on this machine. Nothing is asked of anybody for it."""

    path: Path
    size: int
    num_bytes: int = 0

    def open(self) -> BinaryIO:
        """Return its bytes from the start, not buffered."""
        return cast(BinaryIO, self.path.open("rb", buffering=0))


class Storage(Protocol):
    """What reads files of a data set, each of which may be left where it is or read in part."""

    @property
    def name(self) -> str:
        """Return the data set's name."""
        ...

    @property
    def seed(self) -> str:
        """Return what decides the order of the files."""
        ...

    def has_size(self, file: SourceFile) -> bool:
        """Return whether a file's size is known, so that a part of it can be read."""
        ...

    def is_read_whole(self, file: SourceFile, share: int) -> bool:
        """Return whether all of a file is read where `share` bytes of text are wanted of it."""
        ...

    def take_whole(self, file: SourceFile) -> SourceFile:
        """Return a file as a whole one on this machine."""
        ...

    def open_file(self, file: SourceFile) -> Opened:
        """Return a file of which parts are read."""
        ...

    def name_file(self, file: SourceFile) -> JsonObject:
        """Return what names a file, and its content, in the store."""
        ...

    def open_bar(self, num_bytes: int) -> AbstractContextManager[Any]:
        """Return what shows how much has come; it gives None where nothing does."""
        ...


@dataclass(frozen=True)
class LocalStorage:
    """Files of this machine. Those that are no lines or groups of rows are read whole."""

    name: str

    @property
    def seed(self) -> str:
        """Return the data set's name: a text that grows keeps its order of files."""
        return self.name

    def has_size(self, file: SourceFile) -> bool:
        """Return True: the disk knows it."""
        return True

    def is_read_whole(self, file: SourceFile, share: int) -> bool:
        """Return whether no part of a file can be read, or all of it is wanted."""
        is_divisible = file.is_divisible and file.input.member is None
        if not is_divisible or file.input.suffix == ".json" or file.about_bytes <= share:
            return True
        return file.input.suffix != ".parquet" and not file.has_byte_lines

    def take_whole(self, file: SourceFile) -> SourceFile:
        """Return the file."""
        return file

    def open_file(self, file: SourceFile) -> Opened:
        """Return a file of which parts are read."""
        return LocalFile(file.input.path, file.input.size)

    def name_file(self, file: SourceFile) -> JsonObject:
        """Return a file's name: its part is kept for one reading alone."""
        return {"file": file.input.name}

    def open_bar(self, num_bytes: int) -> AbstractContextManager[Any]:
        """Return nothing to see: a disk is fast."""
        return nullcontext()


@dataclass(frozen=True)
class HubStorage:
    """Files of the Hub."""

    found: HubFiles

    @property
    def name(self) -> str:
        """Return the repository."""
        return self.found.repository

    @property
    def seed(self) -> str:
        """Return the revision."""
        return self.found.commit

    def has_size(self, file: SourceFile) -> bool:
        """Return whether the Hub has told a file's size."""
        return file.input.name in self.found.sizes

    def is_read_whole(self, file: SourceFile, share: int) -> bool:
        """Return False: a range costs less than a file."""
        return False

    def take_whole(self, file: SourceFile) -> SourceFile:
        """Return a file that was downloaded."""
        path = download_file(self.found, file.input.name)
        return replace(file, input=replace(file.input, path=path, is_part=False))

    def open_file(self, file: SourceFile) -> Opened:
        """Return a file that is read by ranges."""
        return open_remote(self.found, file.input.name)

    def name_file(self, file: SourceFile) -> JsonObject:
        """Return repository, revision and name."""
        return {
            "repository": self.found.repository,
            "commit": self.found.commit,
            "file": file.input.name,
        }

    def open_bar(self, num_bytes: int) -> AbstractContextManager[Any]:
        """Return a bar as huggingface_hub shows one of a download: on a terminal alone."""
        from huggingface_hub.utils import tqdm

        return tqdm(total=num_bytes, unit="B", unit_scale=True, desc="text", disable=None)
