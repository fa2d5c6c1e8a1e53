"""Quantities in a sentence or a table: a number and its noun, seconds, bytes, large counts."""

import math

_BYTES_STEP = 1000
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(number: int, noun: str, plural: str = "") -> str:
    """Return "1 layer", "2 layers" or "1,203 layers"; `plural` where an s is not enough."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"


def format_seconds(seconds: float) -> str:
    """Return "0.3 s", "48 s", "12 min 05 s" or "3 h 20 min"; a negative time counts as none."""
    seconds = max(0.0, seconds)
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 2:
        return f"{round(seconds)} s"
    hours, minutes_rest = divmod(minutes, 60)
    return f"{minutes} min {rest:02d} s" if hours < 1 else f"{hours} h {minutes_rest:02d} min"


def format_bytes(num_bytes: float) -> str:
    """Return "512 B", "1.1 MB", "24 GB": decimal units, as disks and the params count them."""
    size = float(num_bytes)
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size = size / _BYTES_STEP
        unit = unit + 1
    return (
        f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 9.95 else f"{size:.1f} {_UNITS[unit]}"
    )


def format_count(count: float) -> str:
    """Return "950", "41,203", "1.62 M", "7.00 B": exact below a million."""
    if abs(count) < 1e6:
        return f"{count:,.0f}"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(count) >= size:
            return f"{count / size:.2f} {letter}"
    raise AssertionError(count)
