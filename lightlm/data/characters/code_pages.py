"""Code pages detected by alphabets, and wide encodings without a byte order mark by their blanks.

charset-normalizer's measures are as close for two code pages of Latin letters as for two languages;
an alphabet is not: hardly a letter of a Polish text is outside of Polish, and in another code page
a third of them are.
"""

import re
from collections.abc import Iterator

ALPHABETS = tuple(
    frozenset(letters + letters.upper())
    for letters in (
        "äöüß", "àâæçéèêëîïôœùûüÿ", "áéíñóúüç", "âãàáçéêíóôõúü", "àèéìíîòóù", "çàéèíïòóúü",
        "áéëïóöüèêçñ",
        "åäöéüà", "æøåéóòäö", "åäöšž", "áðéíóúýþæö", "äöõüšž", "ąćęłńóśźż", "áčďéěíňóřšťúůýžöü",
        "áäčďéíĺľňóôŕšťúýž",
        "áéíóöőúüű", "ăâîșțşţ", "čćđšž", "ëç", "çğıöşüâîû", "ąčęėįšųūž", "āčēģīķļņšūžŗ", "ĉĝĥĵŝŭ",
    )
)  # fmt: skip
"""Letters beyond ASCII of languages: German, French, Spanish, Portuguese, Italian, Catalan, Dutch,
Swedish, Danish and Norwegian, Finnish, Icelandic, Estonian, Polish, Czech, Slovak, Hungarian,
Romanian, Croatian and Slovene, Albanian, Turkish, Lithuanian, Latvian, Esperanto.
"""

SIGNS = frozenset("«»‹›¿¡“”‘’„‚–—…€°§£©®™·•´×½¼¾²³ªº\u00a0\u00ad")
JOINING = frozenset("’‘·-–\u00ad´—")
"""Signs beyond ASCII that texts of any of these languages hold, and those of them that stand
between letters.
"""

LATIN_CODECS = (
    "cp1252", "cp1250", "iso8859_2", "iso8859_15", "cp1254", "cp1257", "iso8859_13", "iso8859_16",
    "cp850", "cp852",
    "cp437", "cp857", "cp775", "cp865", "mac_roman", "mac_latin2", "iso8859_3",
)  # fmt: skip
"""Encodings of Latin letters; of two that fit equally, the first is taken."""

LEAST_FIT = 0.97
"""Fraction of the signs beyond ASCII that must be of one alphabet; the rest are foreign words."""

NEAR_FIT = 0.01
"""Difference in that fraction that says nothing."""

WIDE_CODECS = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
WIDE_BYTES = 1 << 16
WIDE_PRINTABLE = 0.99
WIDE_ASCII_PAIRS = 0.7
"""Fraction of 16-bit units that are two bytes of ASCII from which a text is ASCII with NULs, not
UTF-16.
"""

SEPARATORS = re.compile("[ \t\n\u3000-\u3002\uff0c]")
CHARACTERS_PER_SEPARATOR = 200

ESCAPES = re.compile(rb"\x1b\$(?:[@AB]|[()][CD])|\x1b\([IJ]")
KOREAN_ESCAPE = b"\x1b$)C"
ESCAPED_CODECS = ("iso2022_jp", "iso2022_jp_2", "iso2022_jp_ext")


def find_latin(sample: bytes) -> str | None:
    """Return the encoding of Latin letters in which one language's alphabet holds nearly all of a
    text's letters.
    """
    fits: dict[str, float] = {}
    for codec in LATIN_CODECS:
        try:
            fits[codec] = _fit(sample.decode(codec))
        except UnicodeDecodeError:
            continue

    best = max(fits.values(), default=0.0)
    return (
        next((codec for codec in fits if fits[codec] >= best - NEAR_FIT), None)
        if best >= LEAST_FIT
        else None
    )


def find_wide(head: bytes) -> str | None:
    """Return UTF-32 or UTF-16 of a text in any script without a byte order mark; None for anything
    else.
    """
    found = {
        codec: _count_separators(head, codec)
        for codec in WIDE_CODECS
        if len(head) % (int(codec[4:6]) // 8) == 0
    }
    best = max(found, key=lambda codec: found[codec], default=None)
    return best if best is not None and found[best] > 0 else None


def find_escaped(head: bytes) -> str | None:
    """Return the ISO 2022 encoding of a text whose escape sequences show one; bytes of ASCII alone
    say nothing.
    """
    if ESCAPES.search(head) is None or not head.isascii():
        return None
    codecs = ("iso2022_kr",) if KOREAN_ESCAPE in head else ESCAPED_CODECS
    return next((codec for codec in codecs if _is_decodable(head, codec)), None)


def _fit(text: str) -> float:
    """Return the fraction of the characters beyond ASCII that the best alphabet holds, where they
    may stand.
    """
    signs = 0
    letters: dict[str, int] = {}
    total = 0

    for before, character, after in _neighbors(text):
        if character < "\x80":
            continue
        total += 1
        if character.isalpha() and not (character.isupper() and before.islower()):
            letters[character] = letters.get(character, 0) + 1
        elif character in SIGNS and (
            character in JOINING or not (before.isalpha() and after.isalpha())
        ):
            signs += 1

    held = max(
        sum(number for letter, number in letters.items() if letter in alphabet)
        for alphabet in ALPHABETS
    )

    return (held + signs) / max(1, total)


def _neighbors(text: str) -> Iterator[tuple[str, str, str]]:
    return zip(f" {text}", text, f"{text[1:]} ", strict=False)


def _count_separators(head: bytes, codec: str) -> int:
    """Return how many blanks, line ends and stops a text has in a wide encoding; 0 where it is
    none.
    """
    width = 4 if codec.startswith("utf-32") else 2
    try:
        text = head[: WIDE_BYTES // width * width].decode(codec)
    except UnicodeDecodeError as error:
        # The sample may end inside of a pair of surrogates.
        if error.start < min(len(head), WIDE_BYTES) - 4:
            return 0
        text = head[: error.start].decode(codec)

    if not text or "\0" in text:
        return 0

    printable = sum(
        character.isprintable() or character in "\t\n\r\f\ufeff" or character.isspace()
        for character in text
    )
    if printable < WIDE_PRINTABLE * len(text):
        return 0

    if width == 2 and sum(
        _is_ascii_pair(ord(character)) for character in text
    ) > WIDE_ASCII_PAIRS * len(text):
        return 0

    number = len(SEPARATORS.findall(text))
    return number if number * CHARACTERS_PER_SEPARATOR >= len(text) else 0


def _is_ascii_pair(unit: int) -> bool:
    is_kana = 0x3040 <= unit <= 0x30FF
    return (
        unit < 65_536
        and not is_kana
        and all(byte in (9, 10, 13) or 32 <= byte < 127 for byte in divmod(unit, 256))
    )


def _is_decodable(data: bytes, codec: str) -> bool:
    try:
        data.decode(codec)
    except UnicodeDecodeError as error:
        # The scan may end inside of a character.
        return error.start >= len(data) - 8
    return True
