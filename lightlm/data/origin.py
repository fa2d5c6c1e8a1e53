"""Where a text comes from: recorded with each version, compared before scores are, and what a model
is named after.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from lightlm.params import DatasetParams, is_text

Origin = dict[str, Any]
"""A run's dataset params as they were taken: `source` is a Hub id, an absolute path or
python-docs.
"""

PYTHON_DOCS = "python-docs"

UNRECORDED = ("offline", "hub_timeout_seconds")
"""Params of this machine's way to the Hub: they do not change the text."""

OTHERS = "others"
"""Param of the further texts that are trained on; a model is named and judged by the first."""

MASK = "mask"
"""Param of masking; like the one above it is not recorded where it says nothing."""

IDENTITY = ("source", "config", "train_split")
"""Params that name another text; so does `text_column`, where both name one. Limits and held-out
shares do not.
"""

GENERIC = frozenset(
    "all clean content contents corpus data dataset datasets doc docs document documents download "
    "downloads file files full index input inputs main output part raw sample text texts train "
    "training untitled txt".split()
)
"""Names that say nothing; the folder around them is asked."""

NAMELESS = frozenset("home Users root tmp mnt media Desktop Documents Downloads var data".split())
"""Folders that say nothing of what lies in them."""

RESERVED = frozenset(("champion", "challenger", "previous", "latest"))

ENDINGS = re.compile(
    r"(?i)\.(txt|text|md|markdown|rst|tex|html?|csv|tsv|jsonl?|ndjson|parquet|arrow|xml|log|srt|vtt|ipynb|py|epub|docx?|"
    r"pdf|odt|rtf|mbox|eml|gz|bz2|xz|zst|zip|tar|tgz)$"
)
SHARD = re.compile(r"(?i)[-_.]?(\d{1,6}[-_]of[-_]\d{1,6}|\d{4,6})$")

LONGEST = 60
"""Characters of a name that is made here; MLflow's pages cut longer ones."""


def describe_origin(params: DatasetParams, learned: str | None = None) -> Origin:
    """Return where the text of `params` comes from, and the others that go with it, if there are
    any; `learned` is what was read, which may be python-docs instead.
    """
    values = {
        name: value
        for name, value in params.model_dump(mode="json").items()
        if name not in UNRECORDED and not (name in (OTHERS, MASK) and not value)
    }
    for other in values.get(OTHERS, []):
        if is_path(other["source"]):
            other["source"] = str(Path(other["source"]).expanduser().absolute())
    source = params.source
    path = Path(source).expanduser()

    if source == PYTHON_DOCS or (learned == PYTHON_DOCS and not path.exists()):
        return values | {
            "source": PYTHON_DOCS,
            "config": None,
            "revision": None,
            "text_column": None,
        }

    if is_path(source):
        return values | {"source": str(path.absolute())}

    return values


def is_path(source: str) -> bool:
    """Return whether a data set's name leads to files here: it exists, is a glob, or is written as
    a path.
    """
    if source == PYTHON_DOCS:
        return False
    path = Path(source).expanduser()
    return (
        path.is_absolute()
        or source.startswith((".", "~"))
        or any(sign in source for sign in "*?[")
        or path.exists()
    )


def read_origin(text: str | None) -> Origin | None:
    """Return a recorded origin; None where there is none, or it is no object with a source."""
    try:
        values = json.loads(text or "")
    except ValueError:
        return None
    return values if isinstance(values, dict) and isinstance(values.get("source"), str) else None


def find_hub_id(origin: Origin | None) -> str | None:
    """Return the Hub id of the data set that an origin names; None of another text."""
    source = "" if origin is None else str(origin["source"])
    is_elsewhere = source in ("", PYTHON_DOCS) or Path(source).is_absolute() or "://" in source
    return None if is_elsewhere else source


def read_logged_params(params: Mapping[str, str]) -> Origin | None:
    """Return the origin in a run's logged params, of versions before origins were recorded."""
    names = [name for name in DatasetParams.model_fields if name not in UNRECORDED]
    logged = {name: params[key] for name in names if (key := f"dataset.{name}") in params}
    values = {
        name: None
        if value == "None"
        else value
        if is_text(f"dataset.{name}")
        else _read_number(value)
        for name, value in logged.items()
    }
    return values if isinstance(values.get("source"), str) else None


def list_overrides(origin: Origin) -> dict[str, Any]:
    """Return the dotted overrides that read the text again; of params that this version knows."""
    known = [
        name for name in origin if name in DatasetParams.model_fields and name not in UNRECORDED
    ]
    return {f"dataset.{name}": origin[name] for name in known}


def is_same_text(one: Origin, other: Origin) -> bool:
    """Return whether two origins are one text, which may have grown or changed since."""
    columns = one.get("text_column"), other.get("text_column")
    return all(one.get(name) == other.get(name) for name in IDENTITY) and (
        None in columns or columns[0] == columns[1]
    )


def format_origin(origin: Origin) -> str:
    """Return the data set as a person names it: a path, OWNER/NAME (CONFIG), python-docs; with
    others and their weights.
    """
    details = [
        origin.get("config"),
        origin.get("text_column") and f"column {origin['text_column']}",
    ]
    phrase = ", ".join(str(detail) for detail in details if detail)
    named = f"{origin['source']} ({phrase})" if phrase else str(origin["source"])
    others = [f"{format_origin(other)}: {other['weight']}" for other in origin.get(OTHERS, ())]
    return f"{named} with {', '.join(others)}" if others else named


def list_names(origin: Origin) -> list[str]:
    """Return the names that a model of this text may have, the best first.

    A file is named without its ending, a glob after its folder, a Hub data set after its
    configuration. A name that says nothing (input, data, train) gives way to its folder's. The
    later names are for two texts of one name.
    """
    digest = hashlib.sha256(
        json.dumps([origin.get(part) for part in IDENTITY]).encode()
    ).hexdigest()[:6]
    source = str(origin["source"])

    if source == PYTHON_DOCS:
        words = [PYTHON_DOCS]
    elif _is_local(source):
        words = _name_path(source)
    else:
        words = _name_on_hub(source, origin.get("config"))

    name = safe_word(words[0]) or f"text-{digest}"
    if name in RESERVED or name.isdigit():
        name = f"text-{name}"

    longer = [safe_word(f"{around}-{name}") for around in words[1:2] if safe_word(around)]
    return list(dict.fromkeys([name, *longer, f"{name[: LONGEST - 7]}-{digest}"]))


def safe_word(text: str) -> str:
    """Return a name of letters, digits, dots, dashes and underscores, which registries take; "" if
    none is left.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain)[: LONGEST + 1].strip("-._")[:LONGEST].strip("-._")


def _is_local(source: str) -> bool:
    return PurePath(source).is_absolute()


def _name_path(source: str) -> list[str]:
    """Return the telling parts of a path, the nearest first."""
    parts = list(PurePath(source).parts[1:])
    first_glob = next(
        (index for index, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts)
    )
    parts = [
        strip_endings(part) if index == len(parts) - 1 else part
        for index, part in enumerate(parts[:first_glob])
    ]

    telling = []
    for index in range(len(parts) - 1, -1, -1):
        is_person = index and parts[index - 1] in ("home", "Users")
        is_generic = parts[index].lower() in GENERIC or SHARD.sub("", parts[index]).lower() in (
            *GENERIC,
            "",
        )
        if not (is_person or is_generic or parts[index] in NAMELESS or not safe_word(parts[index])):
            telling.append(parts[index])

    last = parts[-1:] or ["files"]
    return telling or last


def strip_endings(name: str) -> str:
    """Return a file's name without its known endings: stories of stories.jsonl.gz."""
    while (shorter := ENDINGS.sub("", name)) not in (name, ""):
        name = shorter
    return name


def _name_on_hub(source: str, config: str | None) -> list[str]:
    owner, _, name = source.rpartition("/")
    if config and config.lower() not in ("default", "plain_text"):
        words = config if config.lower().startswith(name.lower()) else f"{name}-{config}"
    else:
        words = name
    return [words, owner] if owner else [words]


def _read_number(value: str) -> Any:
    try:
        return int(value) if re.fullmatch(r"[+-]?\d+", value) else float(value)
    except ValueError:
        return value
