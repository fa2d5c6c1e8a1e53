"""Which files a data set's name stands for: a file, a folder or a pattern; their kinds, their
splits, what is left out.

Only regular files below the folder count: hidden ones, links, pipes and what may not be read are
listed with the reason. The rule of splits is strict for texts, whose names are anybody's, and the
Hub's for tables.
"""

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lightlm.data.files.local_path import is_pattern
from lightlm.data.files.suffixes import (
    CODE_SUFFIXES,
    DOCUMENT_SUFFIXES,
    SUFFIXES,
    TABLE_KINDS,
    UNREAD_SUFFIXES,
)
from lightlm.data.formats.packing import (
    ARCHIVE_SUFFIXES,
    UNREAD_PACKED_SUFFIXES,
    Member,
    list_members,
    open_packed,
    split_suffix,
)
from lightlm.errors import DatasetError

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
"""What a file's or folder's name says of the split that it belongs to."""

_SHARD = r"(?:[-_. ]?\d+(?:[-_. ]?of[-_. ]?\d+)?)?"
_EXACT = re.compile(rf"({'|'.join(SPLIT_WORDS)}){_SHARD}", re.IGNORECASE)
"""A text's name that is a split: the word alone, or with the number of a shard."""

_DELIMITED = re.compile(rf"(?:^|[-._ ])({'|'.join(SPLIT_WORDS)})(?:[-._ 0-9]|$)", re.IGNORECASE)
"""A table's: the word between delimiters. Source: datasets, data_files.py,
KEYWORDS_IN_FILENAME_BASE_PATTERNS.
"""

ABOUT = ("README", "LICENSE", "LICENCE", "COPYING", "DATASET_INFOS", "DATASET_DICT")
"""Beginnings of names of files about the data, not of it."""

LISTED = 100
"""Left-out files that are named, for each reason; the rest is a number."""

MOST_FILES = 1_000_000
"""Files looked at below a folder; more is a disk, not a data set."""


class LeftOut(NamedTuple):
    """A file, or a folder with all that it holds, that is not read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class InputFile:
    """One input: a file, or a member of an archive. `name` is shown, `suffix` decides how it is
    read; size in bytes. `is_part`: the file at `path` holds a part of one of that size.
    """

    path: Path
    name: str
    suffix: str
    size: int
    split: str = "train"
    member: Member | None = None
    is_part: bool = False

    @property
    def kind(self) -> str:
        """Return what the suffix says: "parquet", "json", "csv" (tables), "text", "code" or
        "document".
        """
        if self.suffix in TABLE_KINDS:
            return TABLE_KINDS[self.suffix]
        if self.suffix in DOCUMENT_SUFFIXES:
            return "document"
        return "code" if self.suffix in CODE_SUFFIXES else "text"

    @property
    def is_table(self) -> bool:
        """Return whether the input has rows and columns."""
        return self.suffix in TABLE_KINDS

    @property
    def is_packed(self) -> bool:
        """Return whether its size is that of packed bytes."""
        return self.suffix == ".parquet" or (
            self.member is None and bool(split_suffix(self.path.name)[1])
        )

    def open(self) -> BinaryIO:
        """Return a stream of the input's bytes, decompressed."""
        return open_packed(self.path, self.member)


@dataclass
class Inputs:
    """What was found. `is_named`: a person named this one file, so that trouble with it is an
    error, not a remark.
    """

    files: list[InputFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    is_named: bool = False

    def leave_out(self, path: str, reason: str) -> None:
        """Note what is not read, and why; a reason that begins with the file's own name does
        without it.
        """
        self.left_out.append(leave_out(path, reason))


def leave_out(name: str, reason: str) -> LeftOut:
    """Return what is not read, and why; a reason that begins with the file's own name, or its path,
    does without it.
    """
    before, found, after = reason.removeprefix(f"{name}: ").partition(f"{name} ")
    return LeftOut(
        name,
        after.removeprefix("is ")
        if found and " " not in before
        else reason.removeprefix(f"{name}: "),
    )


def find_inputs(path: Path) -> Inputs:
    """Return the inputs that a path stands for: a file, the files below a folder, or those that a
    pattern matches.

    Raises:
        DatasetError: nothing there that can be read.
    """
    if is_pattern(path):
        return _find_matches(str(path))
    if path.is_file():
        found = Inputs(is_named=True)
        _add(found, path, path.name, is_wanted=True)
        if not found.files:
            why = found.left_out[0].reason if found.left_out else "it is empty"
            raise DatasetError(f"{path} cannot be used ({why}); give a file or folder of text")
        return found

    if not path.is_dir():
        raise DatasetError(
            f"{path} is a pipe or a device, which cannot be read twice; give a file or a folder "
            "of text"
        )

    found = Inputs()
    root = path.resolve()
    for file in _walk(root, found):
        _add(found, file, file.relative_to(root).as_posix(), is_wanted=False)
    _leave_out_about(found)
    if not found.files:
        raise DatasetError(f"{path} {_explain_nothing(found)}")

    return found


def split_of(name: str, *, is_table: bool) -> str:
    """Return "train", "validation" or "test", as a name relative to its data set says; "train" by
    default.
    """
    path = Path(name)
    stem = path.name.removesuffix(split_suffix(path.name)[1]).rpartition(".")[0] or path.name
    for folder in path.parts[:-1]:
        if folder.lower() in SPLIT_WORDS:
            return SPLIT_WORDS[folder.lower()]
    found = _EXACT.fullmatch(stem) or (_DELIMITED.search(stem) if is_table else None)
    return SPLIT_WORDS[found[1].lower()] if found else "train"


def shorten(left_out: list[LeftOut]) -> list[LeftOut]:
    """Return the list with at most LISTED paths a reason; how many more there are stands in one
    row.
    """
    numbers: dict[str, int] = {}
    short: list[LeftOut] = []
    for one in left_out:
        numbers[one.reason] = numbers.get(one.reason, 0) + 1
        if numbers[one.reason] <= LISTED:
            short.append(one)
    more = {reason: number - LISTED for reason, number in numbers.items() if number > LISTED}
    return short + [LeftOut(f"... and {number:,} more", reason) for reason, number in more.items()]


def _find_matches(pattern: str) -> Inputs:
    found = Inputs()
    base = Path(pattern[: re.search(r"[*?\[]", pattern).start()])  # pyright: ignore[reportOptionalMemberAccess]
    root = (base if pattern[: len(str(base)) + 1].endswith(os.sep) else base.parent).resolve()
    if "**" in pattern:
        below = _match_below(pattern, root)
    else:
        # Path.glob takes no absolute pattern.
        below = map(Path, sorted(glob.glob(pattern)))  # noqa: PTH207

    for path in below:
        name = os.path.relpath(path.absolute(), root)
        if not path.resolve().is_relative_to(root):
            found.leave_out(name, f"a link out of {root.name}/")
        elif path.is_file():
            _add(found, path.resolve(), name, is_wanted=True)

    found.files = list({(file.path, file.member): file for file in found.files}.values())
    if not found.files:
        raise DatasetError(
            f"no file matches {pattern}; put the pattern in quotes, as --dataset 'src/**/*.py'"
        )

    return found


def _match_below(pattern: str, root: Path) -> Iterator[Path]:
    """Yield the files that a pattern with ** matches; links to folders, which may lead in circles,
    are not followed.
    """
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    for path in _walk(root, Inputs()):
        if _fits(path.relative_to(root).parts, parts[first:]):
            yield path


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a pattern; ** stands for any number of
    folders.
    """
    if not names or not pattern:
        return not names and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _fits(names, pattern[1:]) or _fits(names[1:], pattern)
    return fnmatch.fnmatchcase(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _walk(root: Path, found: Inputs) -> Iterator[Path]:
    """Yield the regular files below a folder in order of their names; the rest is left out with its
    reason.
    """
    number = 0
    errors: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=errors.append):
        here = Path(folder)
        for name in sorted(folders):
            path = here / name
            if name.startswith("."):
                found.leave_out(f"{path.relative_to(root).as_posix()}/", "hidden")
            elif path.is_symlink():
                found.leave_out(f"{path.relative_to(root).as_posix()}/", _describe_link(path, root))
        folders[:] = sorted(
            n for n in folders if not n.startswith(".") and not (here / n).is_symlink()
        )
        for name in sorted(names):
            path = here / name
            number += 1
            if number > MOST_FILES:
                raise DatasetError(
                    f"{root} holds more than {MOST_FILES:,} files; give a folder of text"
                )
            reason = _why_not(path, root)
            if reason is None:
                yield path
            else:
                found.leave_out(path.relative_to(root).as_posix(), reason)

    for error in errors:
        shown = Path(error.filename).relative_to(root).as_posix() if error.filename else str(root)
        found.leave_out(f"{shown}/", f"cannot be entered ({error.strerror})")


def _why_not(path: Path, root: Path) -> str | None:
    """Return why a directory entry is not read; None for a regular file that may be."""
    if path.name.startswith("."):
        return "hidden"

    try:
        info = path.lstat()
    except OSError as error:
        return f"cannot be read ({error.strerror})"

    if stat.S_ISLNK(info.st_mode):
        return _describe_link(path, root)
    if not stat.S_ISREG(info.st_mode):
        return "a pipe, socket or device"
    if not os.access(path, os.R_OK):
        return "cannot be read (Permission denied)"

    return None if info.st_size else "empty"


def _describe_link(path: Path, root: Path) -> str:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a link to nothing"
    return (
        "a link to what is read already"
        if target.is_relative_to(root)
        else "a link out of the folder"
    )


def _add(found: Inputs, path: Path, name: str, *, is_wanted: bool) -> None:
    """Add a file, or the members of an archive; `is_wanted`: it was named, so any kind of text will
    do.
    """
    suffix, packing = split_suffix(path.name)
    suffix = suffix.lower()
    if packing in ARCHIVE_SUFFIXES:
        _add_members(found, path, name)
    elif suffix in UNREAD_SUFFIXES:
        found.leave_out(name, _explain_suffix(suffix))
    elif path.name.lower().endswith(UNREAD_PACKED_SUFFIXES):
        found.leave_out(name, "an archive of a kind that is not read; unpack it")
    elif not is_wanted and suffix not in SUFFIXES and suffix not in CODE_SUFFIXES:
        found.leave_out(name, _explain_suffix(suffix))
    else:
        split = split_of(name, is_table=suffix in TABLE_KINDS)
        found.files.append(InputFile(path, name, suffix, path.stat().st_size, split))


def _add_members(found: Inputs, path: Path, name: str) -> None:
    try:
        members = list_members(path)
    except DatasetError as error:
        if found.is_named:
            raise
        found.leave_out(name, str(error))
        return

    for member in members:
        suffix = split_suffix(member.name)[0].lower()
        shown = f"{name}/{member.name}"
        if member.left_out is not None:
            found.leave_out(shown, member.left_out)
        elif suffix not in SUFFIXES and suffix not in CODE_SUFFIXES:
            found.leave_out(shown, _explain_suffix(suffix))
        else:
            split = split_of(member.name, is_table=suffix in TABLE_KINDS)
            found.files.append(InputFile(path, shown, suffix, member.size, split, member))


def _explain_suffix(suffix: str) -> str:
    if suffix in UNREAD_SUFFIXES:
        return f"a format that is not read ({suffix}): {UNREAD_SUFFIXES[suffix]}"
    return f"no known format of text ({suffix or 'no suffix'})"


def _leave_out_about(found: Inputs) -> None:
    """Leave out files about the data, unless there is nothing else."""
    about = [file for file in found.files if Path(file.name).name.upper().startswith(ABOUT)]
    if len(about) == len(found.files):
        return
    for file in about:
        found.files.remove(file)
        found.leave_out(file.name, "about the data, by its name")


def _explain_nothing(found: Inputs) -> str:
    if not found.left_out:
        return "is an empty folder; give one with text in it"

    reasons: dict[str, list[str]] = {}
    for one in found.left_out:
        reasons.setdefault(one.reason, []).append(one.path)
    phrase = "; ".join(
        f"{len(paths):,} {reason}, as {paths[0]}" for reason, paths in list(reasons.items())[:4]
    )

    return (
        f"holds no file that can be read ({phrase}); give files that end in one of "
        f"{', '.join(SUFFIXES)}"
    )
