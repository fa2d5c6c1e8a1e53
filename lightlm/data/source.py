"""Where documents come from: a data set of the Hub, local files, or the built-in python-docs.

Owns the decision which of the three a name means, what happens without the Hub, and whether rows are lines of one
running text.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from lightlm.data.files import FileSet, RowCounts, choose_column, find_files, hash_files
from lightlm.data.hub import HUB_ID, HubUnreachable, download_split, find_hub_files
from lightlm.errors import DatasetError
from lightlm.params import DatasetParams
from lightlm.store.lock import ignore

PYTHON_DOCS = "python-docs"

PYTHON_DOCS_BYTES_PER_SECOND = 800_000.0
"""Of prose, parsed out of source files by one core (EPYC, November 2026)."""

LINE_SAMPLE = 1000
"""Rows with text that are looked at to tell lines of a running text from documents."""

LINE_SHARE = 0.9
"""Of those that must end in a line end: then rows are lines (WikiText's are, stories and web pages are not)."""


@dataclass(frozen=True)
class Source:
    """Rows of text by split. `digest` names the exact content; `download_seconds` is not charged to the budget.

    `bytes_per_second` is how fast a slow source gives text; None where reading is no cost worth a thought.
    """

    name: str
    digest: str
    splits: dict[str, Callable[[], Iterator[str]]]
    total_rows: int | None
    is_plain_text: bool
    num_bytes: int | None = None
    counts: RowCounts = field(default_factory=RowCounts)
    notice: str | None = None
    download_seconds: float = 0.0
    bytes_per_second: float | None = None

    def rows(self, split: str) -> Iterator[str]:
        """Yield the rows of a split from its start."""
        return self.splits[split]()

    @property
    def short_digest(self) -> str:
        """Return 16 hex digits that name the exact content, whatever part of it a subset takes."""
        return hashlib.sha256(self.digest.encode()).hexdigest()[:16]

    @cached_property
    def is_running_text(self) -> bool:
        """Return whether the rows are lines of one text, to be joined as they stand."""
        if self.is_plain_text:
            return True
        if self.name == PYTHON_DOCS:
            return False
        counted = self.counts.empty, self.counts.invalid
        looks = [is_line(row) for row in islice(filter(str.strip, self.rows("train")), LINE_SAMPLE)]
        # Whoever reads them in earnest counts them.
        self.counts.empty, self.counts.invalid = counted
        return bool(looks) and sum(looks) >= LINE_SHARE * len(looks)


def is_line(row: str) -> bool:
    """Return whether a row is one line with its line end."""
    return row.endswith("\n") and "\n" not in row[:-1]


def check_source(params: DatasetParams) -> None:
    """Refuse at once what can never be found: a missing path, a folder without text, a wrong column.

    Raises:
        DatasetError: with what to do.
    """
    path = find_local_path(params.source)
    if path is not None:
        for files in find_files(path).values():
            choose_column(files[0], params.text_column)


def find_local_path(source: str) -> Path | None:
    """Return the file or folder that `source` names, None where it is a Hub id or the built-in corpus.

    Raises:
        DatasetError: it looks like a path and is not there.
    """
    if source == PYTHON_DOCS:
        return None
    path = Path(source).expanduser()
    if path.exists():
        return path.absolute()
    looks_local = source.startswith((".", "/", "~", "\\")) or path.suffix.lower() in (
        ".txt", ".md", ".csv", ".json", ".jsonl", ".parquet",
    )  # fmt: skip
    if looks_local or not HUB_ID.match(source):
        raise DatasetError(
            f"{source} does not exist; give a file or folder of text, a Hub id (OWNER/NAME), or {PYTHON_DOCS}"
        )
    return None


def open_source(params: DatasetParams, report: Callable[[str], None] = ignore) -> Source:
    """Return the rows that `params` name; without the Hub, the built-in corpus, said loudly.

    Raises:
        DatasetError: nothing there, no text column, or no Hub and `offline` is "no-fallback".
    """
    if params.source == PYTHON_DOCS:
        return open_python_docs(None)
    path = find_local_path(params.source)
    if path is not None:
        return open_files(params, find_files(path), path.stem if path.is_file() else path.name)
    try:
        return open_hub(params)
    except HubUnreachable as reason:
        if params.offline == "no-fallback":
            raise DatasetError(
                f"the Hub is out of reach ({reason}), so {params.source} cannot be read; give a local file or folder, "
                "or allow the built-in text: --offline fallback"
            ) from None
        notice = (
            f"the Hub is out of reach ({reason}): training on the built-in {PYTHON_DOCS} instead of {params.source}"
        )
        report(notice)
        return open_python_docs(notice)


def open_hub(params: DatasetParams) -> Source:
    """Return the rows of a data set of the Hub, downloaded to its cache.

    Raises:
        HubUnreachable: no answer in time, or a broken download.
        DatasetError: no such data set or configuration.
    """
    found = find_hub_files(params)
    started = time.monotonic()
    wanted = {split for split in found.splits if split != "test"}
    if "validation" not in found.splits or params.validation_split == "test":
        wanted = set(found.splits)
    files = {split: download_split(found, split) for split in sorted(wanted)}
    seconds = time.monotonic() - started
    name = "-".join(filter(None, [params.source.rpartition("/")[2], params.config]))
    return open_files(params, files, name, digest=f"{found.repository}@{found.commit}", download_seconds=seconds)


def open_files(
    params: DatasetParams,
    files: dict[str, tuple[Path, ...]],
    name: str,
    *,
    digest: str | None = None,
    download_seconds: float = 0.0,
) -> Source:
    """Return the rows of files by split."""
    named = {_split_name(params.train_split): "train"}
    if params.validation_split is not None:
        named[_split_name(params.validation_split)] = "validation"
    renamed = {named.get(split, split): paths for split, paths in files.items()}
    if "train" not in renamed or (params.validation_split is not None and "validation" not in renamed):
        raise DatasetError(
            f"{params.source} has the splits {', '.join(files)}; give dataset.train_split and "
            "dataset.validation_split one of them"
        )
    counts = RowCounts()
    sets = {
        split: FileSet(paths, choose_column(paths[0], params.text_column), counts) for split, paths in renamed.items()
    }
    contents = digest or "+".join(f"{split}:{hash_files(paths)}" for split, paths in sorted(files.items()))
    return Source(
        name=name,
        digest=contents,
        splits={split: one.rows for split, one in sets.items()},
        total_rows=None if sets["train"].is_plain_text else sets["train"].count_rows(),
        is_plain_text=sets["train"].is_plain_text,
        num_bytes=sum(path.stat().st_size for path in renamed["train"]) if sets["train"].is_plain_text else None,
        counts=counts,
        download_seconds=download_seconds,
    )


def open_python_docs(notice: str | None) -> Source:
    """Return the built-in corpus."""
    from lightlm.data.python_docs import digest_python_docs, list_modules, read_python_docs

    return Source(
        name=PYTHON_DOCS,
        digest=digest_python_docs(),
        splits={"train": read_python_docs},
        total_rows=len(list_modules()),
        is_plain_text=False,
        notice=notice,
        bytes_per_second=PYTHON_DOCS_BYTES_PER_SECOND,
    )


def _split_name(split: str) -> str:
    return {"valid": "validation", "val": "validation", "dev": "validation"}.get(split, split)
