"""A corpus: text that is tokenized already, at a URL or in a folder, too large for one machine.

It is a shared store with one subset, one tokenizer and one set of shards, and a manifest that names
them with their digests. The subset holds all of the held-out text and a sample of the other.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightlm.data.files.local_path import is_url
from lightlm.errors import CorruptError, DatasetError
from lightlm.json_object import JsonObject
from lightlm.params import DatasetParams
from lightlm.store.commit import MANIFEST
from lightlm.store.lock import ignore
from lightlm.store.remote import RemoteFolder
from lightlm.store.shared import Shareable
from lightlm.store.stage import Stage, open_stage

KIND = "corpus"
PARTS = ("subsets", "tokenizers", "shards")

FIRST_WAITS = (1.0,)
"""Seconds between the tries to find a corpus: a wrong URL is no reason to wait long."""


@dataclass(frozen=True)
class Corpus:
    """What a corpus' manifest says. `digest` is the manifest's; `parts` are the name and the digest
    of each part's manifest; bytes and tokens are of training.
    """

    url: str
    digest: str
    name: str
    num_bytes: int
    num_tokens: int
    parts: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Facts:
    """What a corpus says of itself."""

    name: str
    num_bytes: int
    num_tokens: int
    parts: dict


SHAREABLE = Shareable(re.compile("(?!)"), Facts)


def find_corpus_url(source: str) -> str | None:
    """Return the URL of what is, or should be, a corpus; None for what is none."""
    if is_url(source):
        return source.rstrip("/")
    try:
        path = Path(source).expanduser().absolute()
        manifest = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError, RuntimeError):
        return None
    is_corpus = isinstance(manifest, dict) and manifest.get("kind") == KIND
    return path.as_uri() if is_corpus else None


def open_corpus(source: str) -> Corpus | None:
    """Return the corpus that a data set's name stands for; None for any other data set.

    Raises:
        DatasetError: there is none at that URL.
        StoreError: it cannot be read.
    """
    url = find_corpus_url(source)
    if url is None:
        return None

    folder = RemoteFolder(url, FIRST_WAITS)
    found = folder.read_manifest(KIND, SHAREABLE)
    if found is None:
        raise DatasetError(
            f"{url} holds no corpus ({MANIFEST} is missing); make one: lightlm tokenize --dataset "
            f"TEXT --out {url}"
        )
    manifest, digest = found
    facts = manifest["meta"]
    parts = facts["parts"]
    is_whole = parts.keys() == set(PARTS) and all(map(_is_part, parts.values()))
    if not is_whole:
        raise CorruptError(f"{url}/{MANIFEST} does not name the parts of a corpus")
    own = {kind: (str(name), str(sha256)) for kind, (name, sha256) in parts.items()}
    return Corpus(url, digest, **facts | {"parts": own})


def is_corpus(params: DatasetParams) -> bool:
    """Return whether params name a corpus.

    Raises:
        DatasetError: it is mixed with other texts, or none is at that URL.
    """
    found = [open_corpus(one.source) for one in (params, *params.list_others())]
    if params.others and any(found):
        raise DatasetError(
            "a corpus that is tokenized already cannot be mixed with other texts; give it alone"
        )
    return any(found)


def _is_part(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) == 2
        and all(isinstance(one, str) and re.fullmatch(r"[0-9a-f]{16,64}", one) for one in part)
    )


def open_part(
    home: Path,
    corpus: Corpus,
    kind: str,
    shareable: Shareable,
    *,
    finish: Callable[[RemoteFolder, Path], None] | None = None,
    left_there: str = "",
    report: Callable[[str], None] = ignore,
) -> Stage:
    """Return a part of a corpus in the store, brought here or found: all its files, but for those
    whose names begin with `left_there`. `finish` adds what the folder needs here.

    Raises:
        CorruptError: it is not what the corpus' manifest says.
        StoreError: it cannot be read, or the disk refused.
    """
    name, digest = corpus.parts[kind]
    folder = RemoteFolder(corpus.url) / kind / name
    key = {"corpus": corpus.digest, "kind": kind}
    if finish is not None:
        key["url"] = corpus.url
    build = partial(_bring, folder, kind, digest, shareable, finish, left_there)
    return open_stage(home, kind, key, build, report=report)


def _bring(
    folder: RemoteFolder,
    kind: str,
    digest: str,
    shareable: Shareable,
    finish: Callable[[RemoteFolder, Path], None] | None,
    left_there: str,
    scratch: Path,
) -> JsonObject:
    found = folder.read_manifest(kind, shareable)
    if found is None or found[1] != digest:
        raise CorruptError(
            f"{folder.url}/{MANIFEST} is not the one that the corpus names; make the corpus again"
        )
    manifest = found[0]
    files = {
        name: entry
        for name, entry in manifest["files"].items()
        if not (left_there and name.startswith(left_there))
    }
    folder.download(files, scratch)
    if finish is not None:
        finish(folder, scratch)
    return manifest["meta"]
