"""Hours as people write them: 0.5, 0,5, 30m, 1h30, 90s."""

import re

_NUMBER = r"(\d+(?:[.,]\d+)?|[.,]\d+)"
_UNITS = re.compile(
    rf"(?:{_NUMBER}\s*d(?:ays?)?)?\s*(?:{_NUMBER}\s*h(?:ours?|rs?)?)?\s*"
    rf"(?:{_NUMBER}\s*m(?:in(?:utes?)?)?)?\s*(?:{_NUMBER}\s*s(?:ec(?:onds?)?)?)?",
    re.IGNORECASE,
)
_HOURS_AND_MINUTES = re.compile(r"(\d+)\s*h\s*([0-5]?\d)", re.IGNORECASE)
_HOURS_EACH = (24.0, 1.0, 1 / 60, 1 / 3600)


def parse_hours(text: str) -> float:
    """Return the hours that `text` says.

    Raises:
        ValueError: it is neither a number nor a time with units.
    """
    typed = text.strip()
    try:
        return float(
            typed.replace(",", ".") if typed.count(",") == 1 and "." not in typed else typed
        )
    except ValueError:
        pass

    if found := _HOURS_AND_MINUTES.fullmatch(typed):
        return int(found[1]) + int(found[2]) / 60

    found = _UNITS.fullmatch(typed)
    if typed and found is not None:
        parts = zip(found.groups(), _HOURS_EACH, strict=True)
        return sum(float(number.replace(",", ".")) * hours for number, hours in parts if number)

    raise ValueError(
        f"hours are a number or a time with units, as 0.5, 30m, 1h30 or 90s; got {text!r}"
    )
