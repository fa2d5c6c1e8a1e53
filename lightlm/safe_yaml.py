"""YAML as params are written in: plain values alone, as YAML 1.2 has them, no dates, no aliases.

Where a param is a text, what YAML would read as a number or a boolean stays as it was typed.
"""

import json
import re
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from yaml.composer import ComposerError
from yaml.scanner import ScannerError

LONGEST_CHARACTERS = 1_000_000
"""Characters of a YAML text; params/base.yaml has 20,000."""

DEEPEST = 32
"""Brackets inside brackets; params have two."""


class _Loader(yaml.SafeLoader):
    """Safe YAML whose only booleans are true and false, as in YAML 1.2: `off` and `no` are words, a
    date is text.
    """

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        # Thousands of open brackets take PyYAML seconds before Python's own limit ends them.
        if self.flow_level >= DEEPEST:
            raise ScannerError(None, None, "nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: Any, index: Any) -> Any:
        # Nine levels of ten aliases each are a billion values.
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ComposerError(None, None, "aliases (*name) are not taken", event.start_mark)
        return super().compose_node(parent, index)


_NUMBERS = {
    # 1:30 is no ninety, and 017 is seventeen.
    "int": (r"[-+]?0b[01_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+", "-+0123456789"),
    # 1e-3 is a number, where YAML 1.1 wants 1.0e-3.
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
}
"""What YAML 1.2 takes for a number or a boolean, and the characters that it begins with; all else
is text or null.
"""

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _first) in _NUMBERS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def read_yaml(text: str) -> Any:
    """Return what YAML text says: mappings, lists, texts, numbers, booleans and null.

    Raises:
        yaml.YAMLError: it is no YAML, or too long, too deep or too large a number to be read.
    """
    if len(text) > LONGEST_CHARACTERS:
        raise yaml.YAMLError(f"longer than {LONGEST_CHARACTERS:,} characters")

    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML lets through what Python's own constructors raise: `!!int x`, `!!timestamp x`,
        # 6,000 digits.
        is_explained = isinstance(error, ValueError) and str(error)
        raise yaml.YAMLError(
            str(error) if is_explained else "it does not have the form of its tag"
        ) from None
    finally:
        if loader is not None:
            loader.dispose()


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
