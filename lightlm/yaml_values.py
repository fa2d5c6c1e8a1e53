"""Text where a param is a text: what YAML would read as a number or a boolean stays as it was
typed.
"""

import json
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml

from lightlm.safe_yaml import read_yaml


def keep_text(typed: Any, read: Any) -> Any:
    """Return a text param's value: what YAML `read`, but what was `typed` where that is a number or
    a boolean.
    """
    if not isinstance(read, bool | int | float):
        return read
    if isinstance(typed, str):
        return typed.strip()
    return str(read).lower() if isinstance(read, bool) else str(read)


def quote_text(typed: str) -> str:
    """Return a text so that YAML reads it as it was typed: `a: b`, `#1`."""
    try:
        is_plain = read_yaml(typed) == typed
    except yaml.YAMLError:
        is_plain = False
    return typed if is_plain else json.dumps(typed)


def holds_text(annotation: Any) -> bool:
    """Return whether a field of this type holds text, or None, and nothing else."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Annotated:
        return holds_text(parts[0])
    if get_origin(annotation) is Literal:
        return all(isinstance(part, str) for part in parts)
    return annotation is str or (bool(parts) and all(map(holds_text, parts)))
