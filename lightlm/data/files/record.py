"""What the data stage took: the files, their encodings, columns and splits, what was left out,
replaced and repeated.

One record is made while the text is read. It is shown before training, kept with the subset, logged
to MLflow, and printed in report and card. All bytes are of UTF-8 text.
"""

from collections.abc import Iterator
from textwrap import shorten

from pydantic import BaseModel, Field

from lightlm.data.characters.personal import format_personal
from lightlm.quantities import count

LISTED_SOURCES = 500
"""Files that the record lists; of a folder with more, the rest is added up in one row."""


class SourceRecord(BaseModel, extra="forbid"):
    """One file as it was read. `used`: some of its text is trained on or held out."""

    path: str
    kind: str
    split: str
    encoding: str
    column: str | None = None
    documents: int = 0
    bytes: int = 0
    used: bool = False
    rows: int = 0
    empty_rows: int = 0
    bad_rows: int = 0
    replaced_bytes: int = 0
    notes: list[str] = Field(default_factory=list)


class LeftOutRecord(BaseModel, extra="forbid"):
    """A file that was not read, and the reason."""

    path: str
    reason: str


class DataRecord(BaseModel, extra="forbid"):
    """What was taken of a data set, and what was not."""

    documents: int = 0
    train_bytes: int = 0
    validation_bytes: int = 0
    sources: list[SourceRecord] = Field(default_factory=list)
    left_out: list[LeftOutRecord] = Field(default_factory=list)
    encodings: dict[str, int] = Field(default_factory=dict)
    replaced_bytes: int = 0
    empty_rows: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    duplicate_bytes: int = 0
    masked: dict[str, int] = Field(default_factory=dict)
    """Kind of personal data -> how often it was replaced."""
    split: str = ""
    column: str | None = None
    notes: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)

    @property
    def held_out_share(self) -> float:
        """Return the fraction of all bytes that is held out."""
        return self.validation_bytes / max(1, self.train_bytes + self.validation_bytes)

    @property
    def num_left_out(self) -> int:
        """Return how many files were not read."""
        rows = (one.path.split() for one in self.left_out)
        return sum(
            int(words[2].replace(",", "")) if words[:2] == ["...", "and"] else 1 for words in rows
        )

    def summary_lines(self) -> Iterator[str]:
        """Yield what a person should know of the data before training, one sentence a line, without
        the warnings.
        """
        used = [source for source in self.sources if source.used]
        kinds = ", ".join(sorted({source.kind for source in used}))
        files = f"{count(len(used), 'file')} ({kinds})" if used else "the built-in text"
        column = f", column {self.column}" if self.column else ""
        others = [
            f"{name} {number:,}" for name, number in self.encodings.items() if name != "utf-8"
        ]

        encodings = f", encodings: {', '.join(others)}" if others else ""
        yield f"Text from {files}{column}{encodings}; held out: {self.split}"
        gone = {
            ("byte", "bytes", " replaced by U+FFFD"): self.replaced_bytes,
            ("empty row", "empty rows", ""): self.empty_rows,
            ("exact copy", "exact copies", " left out"): self.exact_duplicates,
            ("near copy", "near copies", " left out"): self.near_duplicates,
        }

        phrase = [
            f"{count(number, one, many)}{what}"
            for (one, many, what), number in gone.items()
            if number
        ]

        if self.left_out:
            phrase.append(
                f"{count(self.num_left_out, 'file')} not read ({_main_reasons(self.left_out)})"
            )

        if phrase:
            yield "; ".join(phrase)
        if self.masked:
            yield f"masked: {format_personal(self.masked)}"

        yield from dict.fromkeys([*self.notes, *(note for source in used for note in source.notes)])


def add_up(sources: list[SourceRecord]) -> list[SourceRecord]:
    """Return at most LISTED_SOURCES rows: the rest is one row with the sums of its numbers."""
    if len(sources) <= LISTED_SOURCES:
        return sources

    kept = sources[: LISTED_SOURCES - 1]
    rest = sources[LISTED_SOURCES - 1 :]
    numbers = ("documents", "bytes", "rows", "empty_rows", "bad_rows", "replaced_bytes")
    row = SourceRecord(
        path=f"... and {len(rest):,} more",
        kind=", ".join(sorted({source.kind for source in rest})),
        split=", ".join(sorted({source.split for source in rest})),
        encoding=", ".join(sorted({source.encoding for source in rest})),
        used=any(source.used for source in rest),
        notes=sorted({note for source in rest for note in source.notes})[:20],
    )

    return [
        *kept,
        row.model_copy(update={name: sum(getattr(one, name) for one in rest) for name in numbers}),
    ]


def _main_reasons(left_out: list[LeftOutRecord]) -> str:
    numbers: dict[str, int] = {}
    for one in left_out:
        numbers[one.reason] = numbers.get(one.reason, 0) + 1
    first = [
        shorten(reason, 60, placeholder=" ...")
        for reason in sorted(numbers, key=lambda reason: -numbers[reason])[:3]
    ]
    return "; ".join(first) + ("; ..." if len(numbers) > len(first) else "")
