"""Where documents come from: a data set of the Hub, local files, or the built-in python-docs.

A source that a person named is never replaced by another: only the default data set gives way to
the built-in text where the Hub is out of reach.
"""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lightlm.data.corpus import open_corpus
from lightlm.data.files.inputs import Inputs, LeftOut, find_inputs
from lightlm.data.files.local_path import PYTHON_DOCS, find_local_path, is_pattern, suggest_names
from lightlm.data.files.rows import PythonDocs, Readable, SourceFile, hash_files, open_source_file
from lightlm.data.hub import HubFiles, download_file, find_hub_files, list_hub_files
from lightlm.data.remote import HubUnreachable
from lightlm.data.tables.columns import shorten
from lightlm.errors import DatasetError
from lightlm.params import DatasetParams, is_default_dataset
from lightlm.quantities import count
from lightlm.store.lock import ignore

PYTHON_DOCS_BYTES_PER_SECOND = 800_000.0
"""Bytes of prose a second, parsed out of source files by one core (EPYC, November 2026)."""

WHOLE_BYTES = 1 << 26
"""Bytes of a data set of the Hub that is downloaded whole, whatever is needed of it."""

NO_SPLIT = "none"
"""dataset.validation_split that ignores what files are named: part of all the text is held out."""

LARGEST_HELD_OUT = 0.3
"""Fraction of the bytes that a split by name may hold out before it is taken for a mistake."""


@dataclass(frozen=True)
class Source:
    """Files by split. `digest` names the exact content; `download_seconds` is not charged to the
    budget.

    `num_bytes` are those of training text, where the files' sizes tell; `about_bytes` is a guess
    from their sizes. `bytes_per_second` is how fast a slow source gives text; None where reading is
    no cost worth a thought.
    """

    name: str
    digest: str
    splits: dict[str, list[Readable]]
    total_rows: int | None
    num_bytes: int | None = None
    about_bytes: int | None = None
    held_out_by: str = "hash"
    """"hash", or the name of the split that is held out."""
    notice: str | None = None
    download_seconds: float = 0.0
    bytes_per_second: float | None = None
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    is_named: bool = False
    hub: HubFiles | None = None
    """Where to get the files of `splits`, which are still on the Hub (`read_parts`)."""
    is_part: bool = False
    """Whether the files hold a part of the data set, spread over all of it."""

    @property
    def is_plain_text(self) -> bool:
        """Return whether training rows are lines of texts, whose number says nothing to
        a person.
        """
        return (
            self.total_rows is None
            and bool(self.splits["train"])
            and self.splits["train"][0].is_running_text
        )

    @property
    def short_digest(self) -> str:
        """Return 16 hex digits that name the exact content, whatever part of it a subset takes."""
        return hashlib.sha256(self.digest.encode()).hexdigest()[:16]


def open_source(
    params: DatasetParams, report: Callable[[str], None] = ignore, *, is_all_needed: bool = False
) -> Source:
    """Return the files that `params` name; without the Hub, the built-in corpus in place of the
    default data set, with a warning. Those of a large data set of the Hub stay there, unless
    `is_all_needed`.

    Raises:
        DatasetError: nothing there, no text column, or no Hub.
    """
    if params.source == PYTHON_DOCS:
        return open_python_docs(None)

    corpus = open_corpus(params.source)
    if corpus is not None:
        return Source(corpus.name, corpus.digest, {"train": []}, None, corpus.num_bytes)

    path = find_local_path(params.source)
    if path is not None:
        return open_files(params, find_inputs(path), _name_path(path))

    try:
        return open_hub(params, is_all_needed=is_all_needed)
    except HubUnreachable as reason:
        if not _may_fall_back(params):
            raise DatasetError(explain_unreachable(params.source, str(reason))) from None
        notice = (
            f"the Hub is out of reach ({reason}): training on the built-in {PYTHON_DOCS} "
            f"instead of {params.source}"
        )
        report(notice)
        return open_python_docs(notice)


def check_hub(params: DatasetParams) -> None:
    """Refuse a data set of the Hub that a person named and that is not there, or cannot be reached.

    Raises:
        DatasetError: with what to do.
    """
    if params.source == PYTHON_DOCS or _may_fall_back(params):
        return
    try:
        find_hub_files(params)
    except HubUnreachable as reason:
        raise DatasetError(explain_unreachable(params.source, str(reason))) from None


def _may_fall_back(params: DatasetParams) -> bool:
    return params.offline == "fallback" or (params.offline is None and is_default_dataset(params))


def explain_unreachable(source: str, reason: str) -> str:
    """Return why a data set that a person named cannot be had, and what to do."""
    near = suggest_names(Path(source))
    here = f"there is no file or folder {source} here" + (f" ({near})" if near else "")
    return (
        f"{here}, and the Hub, which may have a data set of this name, is out of reach ({reason}); "
        f"give a file or a folder of text, or take the built-in text: --dataset {PYTHON_DOCS}"
    )


def open_hub(params: DatasetParams, *, is_all_needed: bool = False) -> Source:
    """Return the files of a data set of the Hub, downloaded to its cache; those of a large one,
    which can be read in part, are still to be read.

    Raises:
        HubUnreachable: no answer in time, or a broken download.
        DatasetError: no such data set or configuration.
    """
    found = find_hub_files(params)
    started = time.monotonic()
    wanted = {split for split in found.splits if split != "test"}
    if "validation" not in found.splits or params.validation_split == "test":
        wanted = set(found.splits)

    inputs = Inputs(is_named=True)
    name = "-".join(filter(None, [params.source.rpartition("/")[2], params.config]))
    digest = f"{found.repository}@{found.commit}"
    listed = [file for split in sorted(wanted) for file in list_hub_files(found, split)]

    is_large = sum(file.size for file in listed) > WHOLE_BYTES
    # Empty files have no bytes to ask for.
    files = [SourceFile(file, params.text_column, params.encoding) for file in listed if file.size]
    if is_large and not is_all_needed and all(file.is_divisible for file in files):
        return replace(_gather(params, files, inputs, name, digest), hub=found)

    for file in listed:
        path = download_file(found, file.name)
        inputs.files.append(replace(file, path=path, size=path.stat().st_size, is_part=False))

    seconds = time.monotonic() - started
    return open_files(params, inputs, name, digest=digest, download_seconds=seconds)


def open_files(
    params: DatasetParams,
    inputs: Inputs,
    name: str,
    *,
    digest: str | None = None,
    download_seconds: float = 0.0,
) -> Source:
    """Return the source of files: the kind with most bytes, each file on its side of the split.

    Raises:
        DatasetError: no file of them can be used, or the split by name looks wrong.
    """
    source = _gather(params, _choose_kind(params, inputs), inputs, name, digest)
    return replace(source, download_seconds=download_seconds)


def _gather(
    params: DatasetParams,
    files: list[SourceFile],
    inputs: Inputs,
    name: str,
    digest: str | None,
) -> Source:
    splits, held_out_by = _assign_splits(params, files, inputs)
    train = splits["train"]
    about = sum(file.about_bytes for file in train)

    return Source(
        name=name,
        digest=digest
        or "+".join(
            f"{split}:{hash_files([f.input for f in files])}" for split, files in splits.items()
        ),
        splits={split: list[Readable](files) for split, files in splits.items()},
        total_rows=_count_rows(train),
        num_bytes=None
        if any(file.input.is_table or file.input.is_packed for file in train)
        else about,
        about_bytes=about,
        held_out_by=held_out_by,
        left_out=inputs.left_out,
        notes=inputs.notes,
        warnings=inputs.warnings,
        is_named=inputs.is_named,
    )


def open_python_docs(notice: str | None) -> Source:
    """Return the built-in corpus."""
    from lightlm.data.files.python_docs import digest_python_docs, list_modules

    return Source(
        name=PYTHON_DOCS,
        digest=digest_python_docs(),
        splits={"train": [PythonDocs()]},
        total_rows=len(list_modules()),
        notice=notice,
        bytes_per_second=PYTHON_DOCS_BYTES_PER_SECOND,
    )


def _choose_kind(params: DatasetParams, inputs: Inputs) -> list[SourceFile]:
    """Return the files of the kind that has most bytes; those of others, and tables without text,
    are left out.
    """
    kinds: dict[str, list[SourceFile]] = {}
    for file in inputs.files:
        kind = "text" if file.kind == "document" else file.kind
        kinds.setdefault(kind, []).append(
            open_source_file(file, params.text_column, params.encoding)
        )

    if len(kinds) > 1 and "code" in kinds and not inputs.is_named:
        suffixes = ", ".join(sorted({file.input.suffix for file in kinds["code"]}))
        for file in kinds.pop("code"):
            inputs.leave_out(
                file.input.name, f"source code ({suffixes}); name it by a pattern: 'FOLDER/**/*.py'"
            )

    errors: list[DatasetError] = []
    for kind in list(kinds):
        if kind in ("text", "code"):
            continue
        usable: list[SourceFile] = []
        for file in kinds[kind]:
            try:
                file.shape  # noqa: B018  (raises where the table has no text)
            except DatasetError as error:
                if inputs.is_named:
                    raise
                errors.append(error)
                inputs.leave_out(file.input.name, str(error))
            else:
                usable.append(file)
        kinds[kind] = usable

    sizes = {kind: sum(file.input.size for file in files) for kind, files in kinds.items() if files}
    if not sizes:
        raise errors[0]

    winner = max(sizes, key=lambda kind: sizes[kind])
    _warn_of_tables(inputs, winner, len(kinds[winner]))
    for kind, files in kinds.items():
        for file in files if kind != winner else []:
            inputs.leave_out(
                file.input.name,
                f"a {kind} file in a folder with more {winner}; give it by its own path",
            )

    return kinds[winner]


def _warn_of_tables(inputs: Inputs, kind: str, num_read: int) -> None:
    """Warn of left-out tables of the kind that is read: a person may miss them."""
    left_out = {one.path: one.reason for one in inputs.left_out}
    unread = [
        file.name
        for file in inputs.files
        if file.kind == kind and file.is_table and file.name in left_out
    ]

    if unread:
        inputs.warnings.append(
            f"{len(unread):,} of {num_read + len(unread):,} {kind} files are left out, as "
            f"{unread[0]}: {shorten(left_out[unread[0]], 160)}"
        )


def _assign_splits(
    params: DatasetParams, files: Iterable[SourceFile], inputs: Inputs
) -> tuple[dict[str, list[SourceFile]], str]:
    """Return the files by side, "train" and maybe "validation", and by what is held out.

    Raises:
        DatasetError: no such split, or one that holds out too much to be meant.
    """
    found: dict[str, list[SourceFile]] = {}
    for file in files:
        found.setdefault(file.input.split, []).append(file)
    wanted_train = _split_name(params.train_split)
    wanted = None if params.validation_split is None else _split_name(params.validation_split)

    if wanted == NO_SPLIT or (wanted is None and "train" not in found):
        if len(found) > 1 or "train" not in found:
            inputs.notes.append(f"files named {', '.join(sorted(found))} are all training text")
        return {"train": [file for split in sorted(found) for file in found[split]]}, "hash"

    if wanted_train not in found or (wanted is not None and wanted not in found):
        raise DatasetError(
            f"{params.source} has the splits {', '.join(found)}; give dataset.train_split and "
            f"dataset.validation_split one of them, or --set dataset.validation_split={NO_SPLIT}"
        )

    held_out = wanted or next((split for split in ("validation", "test") if split in found), None)
    unused = [split for split in found if split not in (wanted_train, held_out)]
    for split in unused:
        inputs.notes.append(f"the split {split} is not used ({count(len(found[split]), 'file')})")
        for file in found[split]:
            inputs.leave_out(file.input.name, f"the split {split}, which is not used")

    if held_out is None:
        return {"train": found[wanted_train]}, "hash"

    sides = {"train": found[wanted_train], "validation": found[held_out]}
    _refuse_large_split(params, sides, held_out)
    return sides, held_out


def _refuse_large_split(
    params: DatasetParams, sides: dict[str, list[SourceFile]], held_out: str
) -> None:
    rows = {side: _count_rows(files) for side, files in sides.items()}
    sizes = {
        side: (None if None in rows.values() else rows[side])
        or sum(file.input.size for file in files)
        for side, files in sides.items()
    }

    share = sizes["validation"] / max(1, sum(sizes.values()))
    if params.validation_split is None and share > LARGEST_HELD_OUT:
        raise DatasetError(
            f"{params.source}: the files named {held_out} are {share:.0%} of the text (as "
            f"{sides['validation'][0].input.name}), more than is held out by intent; train on all "
            f"files with --set dataset.validation_split={NO_SPLIT}, or keep it so with --set "
            f"dataset.validation_split={held_out}"
        )


def _count_rows(files: Iterable[SourceFile]) -> int | None:
    """Return how many documents there are, where all files are tables of documents that say so."""
    total = 0
    for file in files:
        rows = file.num_rows
        if rows is None:
            return None
        total += rows
    return total


def _name_path(path: Path) -> str:
    if is_pattern(path):
        parts = [part for part in path.parts if not any(c in part for c in "*?[")]
        return parts[-1].strip("/") or path.name if parts else Path.cwd().name
    return path.name.partition(".")[0] or path.name if path.is_file() else path.name


def _split_name(split: str) -> str:
    return {"valid": "validation", "val": "validation", "dev": "validation"}.get(split, split)
