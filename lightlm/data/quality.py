"""The quality of a text by simple rules: repeated lines, symbols, personal data; its languages.

The limits are those of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1). They are shown, and
leave nothing out: a poem repeats lines, and source code is full of symbols.
"""

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel

from lightlm.data.characters.personal import count_personal, format_personal
from lightlm.data.copies.written import Documents
from lightlm.data.languages import find_languages
from lightlm.quantities import count

SAMPLED = 2000
"""Documents, about, in which repeated lines and symbols are looked for, from all over the text."""

MOST_REPEATED = 0.2
"""Fraction of a document's bytes in lines that stood in it before, from which it is repetitive."""

MOST_SYMBOLS = 0.1
"""Number signs and ellipses for each word from which a document is one of symbols."""

LEAST_WORDLIKE = 0.8
"""Fraction of the words with a letter in them below which a document is one of symbols, too."""

SHOWN_LANGUAGES = 6
"""Languages that are named, the most frequent."""


class Quality(BaseModel, extra="forbid"):
    """What was found: personal data in all documents, the rest among `documents` of them, whose
    bytes `repeated_share` is of.
    """

    documents: int = 0
    repetitive_documents: int = 0
    symbol_documents: int = 0
    repeated_share: float = 0.0
    personal: dict[str, int] = {}
    languages: dict[str, float] | None = None
    """Fraction of the bytes in each language, by its code; None where no package finds them."""

    def describe(self) -> list[str]:
        """Return the findings, a sentence each."""
        lines = []
        if self.personal:
            found = format_personal(self.personal)
            lines.append(f"{found} by their form; --set dataset.mask=true replaces them")
        beyond = [
            f"{number:,} {what}"
            for number, what in (
                (self.repetitive_documents, "repeat lines"),
                (self.symbol_documents, "are mostly symbols or numbers"),
            )
            if number
        ]
        lines.append(
            f"of {count(self.documents, 'document')} looked at, "
            f"{' and '.join(beyond) or 'none repeats lines or is mostly symbols'}; repeated lines "
            f"are {self.repeated_share:.1%} of the bytes"
        )
        lines.append(self._describe_languages())
        return lines

    def _describe_languages(self) -> str:
        if self.languages is None:
            return "its languages are not known: pip install 'lightlm[languages]' finds them"
        shares = [f"{code} {share:.0%}" for code, share in self.languages.items()]
        rest = f" and {len(shares) - SHOWN_LANGUAGES} more" if len(shares) > SHOWN_LANGUAGES else ""
        return f"languages: {', '.join(shares[:SHOWN_LANGUAGES]) or 'none that is clear'}{rest}"


def measure_quality(documents: Sequence[bytes] | Documents) -> Quality:
    """Return the personal data in documents, and what the other rules find in a sample of them."""
    found = Quality()
    personal: Counter[str] = Counter()
    repeated = total = 0
    step = max(1, len(documents) // SAMPLED)
    sample: list[bytes] = []
    for index in range(len(documents)):
        document = documents[index]
        personal += count_personal(document)
        if index % step:
            continue
        sample.append(document)
        again = count_repeated(document)
        found.documents += 1
        found.repetitive_documents += again > MOST_REPEATED * len(document)
        found.symbol_documents += is_symbols(document)
        repeated += again
        total += len(document)
    found.repeated_share = repeated / max(1, total)
    found.personal = dict(personal)
    found.languages = find_languages(sample)
    return found


def count_repeated(document: bytes) -> int:
    """Return the bytes of the lines that stood in a document before; empty lines are none."""
    seen: set[bytes] = set()
    repeated = 0
    for line in document.splitlines():
        stripped = line.strip()
        if stripped in seen:
            repeated += len(line)
        elif stripped:
            seen.add(stripped)
    return repeated


def is_symbols(document: bytes) -> bool:
    """Return whether number signs and ellipses are many, or few words have a letter."""
    words = document.decode("utf-8", "replace").split()
    symbols = document.count(b"#") + document.count(b"...") + document.count("…".encode())
    wordlike = sum(any(map(str.isalpha, word)) for word in words)
    return symbols > MOST_SYMBOLS * len(words) or wordlike < LEAST_WORDLIKE * len(words)
