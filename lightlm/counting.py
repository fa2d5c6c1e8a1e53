"""Counts in a sentence: a number and its noun, in the singular for one."""


def count(number: int, noun: str, plural: str = "") -> str:
    """Return "1 layer", "2 layers" or "1,203 layers"; `plural` where an s is not enough."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"
