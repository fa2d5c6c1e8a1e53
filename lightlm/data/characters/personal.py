"""Personal data in text: mail addresses, phone numbers and secret keys, found by their form.

A form is no proof: a number of ten digits may be a phone's, and one in words is not found.
"""

import re
from collections import Counter
from collections.abc import Mapping

from lightlm.quantities import count

PATTERNS = {
    "mail address": re.compile(
        rb"(?<![\w.%+-])[A-Za-z0-9][\w.%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"
    ),
    "key": re.compile(
        rb"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\w+/=\s]{1,8000}"
        rb"-----END [A-Z ]{0,40}PRIVATE KEY-----"
        rb"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,255}|\bgithub_pat_\w{22,255}"
        rb"|\bglpat-[\w-]{20,64}|\bhf_[A-Za-z0-9]{30,64}|\bsk-[\w-]{20,255}|\bxox[abprs]-[\w-]{10,255}"
        rb"|\bAIza[\w-]{35}|\beyJ[\w-]{8,2000}\.eyJ[\w-]{8,8000}\.[\w-]{8,2000}"
    ),
    "phone number": re.compile(
        rb"(?<![\w.,+/-])(?:\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
        rb"|\(\d{3}\) ?\d{3}[-.]\d{4}|\d{3}([-.])\d{3}\1\d{4})(?![\w-]|[.,]\d)"
    ),
}
"""Kind of data -> the form that it has in UTF-8. Keys by the prefixes of AWS, GitHub, GitLab,
Hugging Face, OpenAI, Slack and Google, JSON web tokens, and PEM.
"""

KEYS = b"PRIVATE KEY AKIA ASIA ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- hf_ sk- xox AIza eyJ"
NEEDED = {"mail address": [b"@"], "key": KEYS.split()}
"""Bytes of which a kind has one: most text is looked through for them alone, which takes little."""


def format_personal(found: Mapping[str, int]) -> str:
    """Return "2 mail addresses, 1 key"."""
    kinds = sorted(found.items(), key=lambda entry: -entry[1])
    return ", ".join(
        count(number, kind, f"{kind}{'es' if kind.endswith('s') else 's'}")
        for kind, number in kinds
    )


def count_personal(text: bytes) -> Counter[str]:
    """Return how often each kind of personal data stands in a text."""
    return mask_personal(text)[1]


def mask_personal(text: bytes) -> tuple[bytes, Counter[str]]:
    """Return a text with personal data replaced by its kind, as "<mail address>", and how often."""
    found: Counter[str] = Counter()
    for kind, pattern in PATTERNS.items():
        if any(word in text for word in NEEDED.get(kind, [b""])):
            text, number = pattern.subn(f"<{kind}>".encode(), text)
            found[kind] += number
    return text, +found
