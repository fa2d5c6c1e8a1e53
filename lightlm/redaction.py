"""Redaction: secrets are taken out of every text before it is stored, logged or sent."""

import re
from collections.abc import Mapping

HIDDEN = "[hidden]"

LINE_CHARACTERS = 300
"""Characters of an error's line in a message."""

_NAME = r"(?:password|passwd|passphrase|secret|credentials?|auth_?string|(?:api|access|account|private|secret)[_-]?key)"  # noqa: E501
_COUNTABLE = r"(?:token(?!s)|_pat)"
_IS = r"[\\\"']*\s*[=:]\s*"

_SECRETS = (
    # What its own form gives away.
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:hf_|github_pat_|gh[pousr]_|glpat-|npm_|xox[abeprs]-)[A-Za-z0-9_-]{8,}"
        ),
        HIDDEN,
    ),
    (re.compile(r"(?<![A-Za-z0-9])(?:sk-|pypi-AgE|AIza)[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"), HIDDEN),
    (re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]{8,}"), HIDDEN),
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        HIDDEN,
    ),
    # What stands before the host of a URL: user and password, or a token alone; and what signs a
    # URL.
    (re.compile(r"(?<=://)[^/\s\"'<>]+(?=@)"), HIDDEN),
    (
        re.compile(r"(?i)([?&](?:[a-z-]*signature|[a-z-]*credential|sig)=)[^&\s\"']+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)((?:bearer|authorization:\s*\w+) )[A-Za-z0-9._~+/=-]{8,}"), rf"\1{HIDDEN}"),
    # What is called a secret: quoted to the closing quote, else to the next space or comma. A
    # number after "token" is a count, a null is nothing, and <|...|> is a tokenizer's.
    (
        re.compile(rf"(?i)((?:{_NAME}|{_COUNTABLE}){_IS})(\\?[\"'])(?!<|\2)[^\n]+?\2"),
        rf"\1\2{HIDDEN}\2",
    ),
    (re.compile(rf"(?i)({_NAME}{_IS})(?!null\b|none\b)[^\s,;&}}\"'\\\[<]{{3,}}"), rf"\1{HIDDEN}"),
    (
        re.compile(
            rf"(?i)({_COUNTABLE}{_IS})(?!null\b|none\b|[\d.,]+(?![\w-]))[^\s,;&}}\"'\\\[<]{{6,}}"
        ),
        rf"\1{HIDDEN}",
    ),
)
_SECRET_NAME = re.compile(rf"(?i)(?:{_NAME}|{_COUNTABLE})$")


def redact(text: str) -> str:
    """Return `text` with everything that looks like a secret hidden: tokens, keys, passwords in
    URLs.
    """
    for pattern, hidden in _SECRETS:
        text = pattern.sub(hidden, text)
    return text


def clean(text: str) -> str:
    """Return `text` as every store takes it: secrets hidden, and no NUL or lone surrogate, which
    databases refuse.
    """
    return redact(
        text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    )


def clean_values(values: Mapping[str, object]) -> dict[str, str]:
    """Return values as text, cleaned; a value whose name says that it is a secret is hidden."""
    return {name: _clean_named(name, str(value)) for name, value in values.items()}


def _clean_named(name: str, value: str) -> str:
    is_harmless = (
        value in ("", "None") or value.startswith("<") or re.fullmatch(r"[\d.,e+-]+", value)
    )
    return HIDDEN if _SECRET_NAME.search(name) and not is_harmless else clean(value)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its class, shortened and without secrets."""
    return redact((str(error).strip() or type(error).__name__).splitlines()[0])[:LINE_CHARACTERS]
