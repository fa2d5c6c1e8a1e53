"""The saved configuration, last_config.json: the user's choices over params/base.yaml.

Reads an older or damaged file as far as possible, and reports the rest. It is written durably under
LIGHTLM_HOME, so that it is found from every folder.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lightlm.errors import InputError, ParameterError
from lightlm.json_object import JsonObject
from lightlm.params import Overrides, Params, load_params, quote
from lightlm.store.commit import write_file

CONFIGURATION = "last_config.json"

SCHEMA = 1
"""Version of the file's schema; it holds only differences from params/base.yaml."""

MAX_BYTES = 1_000_000
"""A larger file is something else."""


class Loaded(NamedTuple):
    """The content of a file: valid overrides, and what was left out and why."""

    choices: Overrides
    notices: list[str]


def find_configuration(home: Path) -> Path:
    """Return the file's path: in LIGHTLM_HOME, or in this folder if only it has one."""
    kept = home / CONFIGURATION
    here = Path(CONFIGURATION)
    return here.absolute() if here.is_file() and not kept.exists() else kept


def save_configuration(path: Path, choices: Mapping[str, Any], shape: str) -> None:
    """Write the choices by section, with a line on the shape for a human reader.

    Raises:
        StoreError: the disk refused; an earlier file stays.
    """
    sections: dict[str, JsonObject] = {}
    for name, value in list_differences(load_params(overrides=choices)):
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value

    saved_at = datetime.now(UTC).isoformat(timespec="seconds")
    content = {
        "kind": "lightlm configuration",
        "schema": SCHEMA,
        "saved_at": saved_at,
        "shape": shape,
    }

    text = json.dumps(content | {"params": sections}, indent=2, ensure_ascii=False)
    write_file(path, f"{text}\n".encode())


def list_differences(params: Params) -> Iterator[tuple[str, Any]]:
    """Yield the dotted names and values that are not params/base.yaml's."""
    base = load_params().flatten()
    for name, value in params.flatten().items():
        if value != base[name]:
            yield name, value


def load_configuration(path: Path) -> Loaded:
    """Return the choices of a saved configuration, without single ones that are unusable.

    Raises:
        InputError: there is no such file, it is none of ours, it is newer than this version, or its
            values exclude each other.
    """
    content = _read_json(path)
    schema = content.get("schema", 0)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise InputError(
            f"{path} was saved by a newer LightLM (schema {quote(schema)}, this one reads "
            f"{SCHEMA}); install that version, or save the configuration again"
        )

    notices = (
        []
        if schema == SCHEMA
        else [f"{path.name} has no schema {SCHEMA}: what this version knows is taken"]
    )
    choices: Overrides = {}

    for name, value in _list_values(content):
        try:
            load_params(overrides={name: value})
        except ParameterError as error:
            notices.append(f"left out {quote(name)[1:-1]}={quote(value)}: {error}")
        else:
            choices[name] = value

    if not choices:
        phrase = "; ".join(notices) or "it changes nothing"
        raise InputError(
            f"{path} holds no value that can be used ({phrase}); save one with `lightlm setup`"
        )

    try:
        load_params(overrides=choices)
    except ParameterError as error:
        raise InputError(f"{path}: its values exclude each other: {error}") from None

    return Loaded(choices, notices)


def _read_json(path: Path) -> JsonObject:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} has more than {MAX_BYTES:,} bytes; that is no configuration")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"there is no {path}; save a configuration first, or give another file"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give another file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged, it is no JSON ({error}); save the configuration anew"
        ) from None

    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object; save the configuration anew")

    return content


def _list_values(content: JsonObject) -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values; looks up names without a section, as in older files."""
    sections = content.get("params")
    entries = sections if isinstance(sections, dict) else content
    homes: dict[str, list[str]] = {}
    for name in load_params().flatten():
        homes.setdefault(name.partition(".")[2], []).append(name)
    for outer, entry in entries.items():
        if isinstance(entry, dict):
            yield from ((f"{outer}.{key}", value) for key, value in entry.items())
        elif entries is sections or outer not in ("kind", "schema", "saved_at", "shape", "version"):
            yield (homes[outer][0] if len(homes.get(outer, [])) == 1 else outer), entry
