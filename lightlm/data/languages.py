"""The languages of a text's documents, by py3langid where it is installed."""

from collections import Counter
from collections.abc import Sequence

SAMPLED = 300
"""Documents, about, whose languages are looked for: a millisecond each."""

READ_BYTES = 1000
"""Bytes of a document that its language is seen by, from its middle."""

LEAST_LETTERS = 20
"""Letters of them below which a document is of no language: numbers, or a heading."""

LEAST_CONFIDENCE = 0.9
UNCLEAR = "unclear"
"""What stands for the language of a document below that confidence."""

NO_LANGUAGE = "zxx"
"""The code of a text without a language, such as a list of names."""


def find_languages(documents: Sequence[bytes]) -> dict[str, float] | None:
    """Return the fraction of the documents' bytes in each language, by its ISO 639-1 code, the most
    frequent first; None without py3langid.
    """
    try:
        from py3langid.langid import (  # pyright: ignore[reportMissingImports]
            MODEL_FILE,
            LanguageIdentifier,
        )
    except ImportError:
        return None

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found: Counter[str] = Counter()
    for document in documents[:: max(1, len(documents) // SAMPLED)]:
        middle = max(0, (len(document) - READ_BYTES) // 2)
        passage = document[middle : middle + READ_BYTES].decode("utf-8", "ignore")
        if sum(map(str.isalpha, passage)) < LEAST_LETTERS:
            continue
        code, confidence = identifier.classify(passage)
        is_clear = confidence >= LEAST_CONFIDENCE and code != NO_LANGUAGE
        found[code if is_clear else UNCLEAR] += len(document)

    total = sum(found.values())
    return {code: size / total for code, size in found.most_common()}
