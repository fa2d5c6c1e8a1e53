"""A base from a Hugging Face folder: weights in safetensors alone, sizes checked before anything is
allocated, no code of it run.
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from lightlm.bases.pretrained import (
    BASE_FILE,
    KIND,
    LOSSLESS_FILE,
    OWN_FILES,
    WEIGHTS_FILE,
    Base,
    Origin,
    check_shapes,
    open_base,
)
from lightlm.bases.vocabulary import list_ids, make_lossless
from lightlm.bases.weights import Tensor, merge, read_header
from lightlm.data.tokenization.checks import read_end_of_text, read_tokenizer_file
from lightlm.errors import ModelVersionError, TokenizerError
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig
from lightlm.model.families import describe_config, list_shapes, read_config, read_config_file
from lightlm.safe_yaml import read_yaml
from lightlm.store.disk import hash_file
from lightlm.store.lock import ignore
from lightlm.store.stage import open_stage

FORMAT = 1

INDEX_FILE = "model.safetensors.index.json"

HUB_CACHE = re.compile(r"models--([^/]+)--([^/]+)/snapshots/([0-9a-f]{7,64})$")
"""How the Hub's cache names a repository's folder at a commit."""

MAX_CARD_BYTES = 1 << 20


def adopt_folder(
    home: Path,
    folder: Path,
    *,
    kind: str = "folder",
    name: str | None = None,
    revision: str = "",
    report: Callable[[str], None] = ignore,
    note_seconds: Callable[[float], None] = lambda seconds: None,
) -> Base:
    """Return the base of a Hugging Face folder, copied into the store; once per content.

    Raises:
        ModelVersionError: it holds no model of a known family in safetensors.
        TokenizerError: its tokenizer is missing or malformed, or loses text.
        StoreError: the disk refused, or has no room.
    """
    config = read_config(folder)
    shards = list_shards(folder)
    tensors = {key: one for shard in shards for key, one in read_header(shard).items()}
    wanted = list_shapes(config)
    check_shapes(wanted, {key: one.shape for key, one in tensors.items()}, folder)
    chosen = {key: tensors[key] for key in wanted}

    described = [folder / name for name in OWN_FILES if (folder / name).is_file()]
    digest = hash_files([*described, *shards])
    found = HUB_CACHE.search(folder.absolute().as_posix())
    origin = Origin.model_validate(
        {
            "kind": "hub" if found else kind,
            "id": name or (f"{found[1]}/{found[2]}" if found else folder.absolute().name),
            "revision": revision or (found[3] if found else ""),
            "digest": digest,
            "end_of_text": "",
            **read_card(folder),
        }
    )
    return build(
        home,
        origin,
        lambda scratch, entries: _copy(folder, config, chosen, scratch, entries),
        config,
        lambda: read_tokenizer(folder),
        sum(tensor.num_bytes for tensor in chosen.values()),
        report,
        note_seconds,
    )


def build(
    home: Path,
    origin: Origin,
    write_files: Callable[[Path, int], None],
    config: ModelConfig,
    give_tokenizer: Callable[[], tuple[bytes, str | None]],
    num_bytes: int,
    report: Callable[[str], None],
    note_seconds: Callable[[float], None],
) -> Base:
    """Return the base in the store, made by `write_files` (folder, entries of the vocabulary) where
    it is not there yet; `note_seconds` gets the seconds that making it took.
    """

    def write(scratch: Path) -> JsonObject:
        started = time.monotonic()
        report(f"Bringing {origin.id} into the store, once")
        content, named = give_tokenizer()
        text, end, notes = make_lossless(content, origin.id, named)
        entries = max(config.vocab_size, 1 + max(list_ids(json.loads(text)).values()))
        (scratch / LOSSLESS_FILE).write_text(text, encoding="utf-8")
        write_files(scratch, entries)
        complete = origin.model_copy(update={"end_of_text": end, "notes": tuple(notes)})
        (scratch / BASE_FILE).write_text(complete.model_dump_json(indent=2), encoding="utf-8")
        note_seconds(time.monotonic() - started)
        return {"source": origin.id}

    key = {
        "format": FORMAT,
        "digest": origin.digest,
        "id": origin.id,
        "revision": origin.revision,
    }
    return open_base(open_stage(home, KIND, key, write, num_bytes, report=report).folder)


def _copy(
    folder: Path, config: ModelConfig, tensors: dict[str, Tensor], scratch: Path, entries: int
) -> None:
    for name in OWN_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, scratch / name)
    # Written anew: transformers leaves out what has a default value, and older ones spell it
    # otherwise.
    theirs = read_config_file(folder / "config.json")
    ids = {f"{kind}_token_id": theirs.get(f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    write_config(scratch, describe_config(config, 0) | ids, entries)
    merge(tensors, scratch / WEIGHTS_FILE, grow(tensors, entries))


def grow(names: Iterable[str], entries: int) -> dict[str, int]:
    """Return the rows that the matrices of the vocabulary get."""
    matrices = ("model.embed_tokens.weight", "lm_head.weight")
    return {name: entries for name in matrices if name in set(names)}


def write_config(scratch: Path, values: JsonObject, entries: int) -> None:
    """Write config.json with so many entries of the vocabulary."""
    text = json.dumps(values | {"vocab_size": entries}, indent=2)
    (scratch / "config.json").write_text(text + "\n", encoding="utf-8")


def list_shards(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder.

    Raises:
        ModelVersionError: there are none, or the index names files outside of it.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not (folder / INDEX_FILE).is_file():
        others = sorted(path.name for path in folder.glob("*.bin"))
        found = f" (it has {', '.join(others[:3])}, which can run code)" if others else ""
        raise ModelVersionError(
            f"{folder} holds no {WEIGHTS_FILE}{found}; give weights in safetensors, or a GGUF file"
        )

    names = read_config_file(folder / INDEX_FILE).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")
        for name in names.values()
    ):
        raise ModelVersionError(
            f"{folder / INDEX_FILE} names no safetensors files of its folder; download it again"
        )
    return [folder / name for name in sorted(set(names.values()))]


def read_tokenizer(folder: Path) -> tuple[bytes, str | None]:
    """Return a folder's tokenizer.json, and the end of text that its config names.

    Raises:
        TokenizerError: there is none.
    """
    path = folder / "tokenizer.json"
    try:
        content = read_tokenizer_file(path)
    except OSError:
        raise TokenizerError(
            f"{folder} holds no tokenizer.json; let transformers write one: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        ) from None
    config = folder / "tokenizer_config.json"
    return content, read_end_of_text(read_config_file(config) if config.is_file() else None)


def read_card(folder: Path) -> JsonObject:
    """Return license and languages of a folder's README.md, as far as its header names them."""
    path = folder / "README.md"
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            return {}
        _, header, _ = path.read_text(encoding="utf-8").split("---\n", 2)
        values = read_yaml(header)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(values, dict):
        return {}
    return clean_card(values.get("license"), values.get("language"))


def clean_card(license_name: object, languages: object) -> JsonObject:
    """Return license and languages as short text."""
    listed = languages if isinstance(languages, list) else [languages]
    return {
        "license": license_name[:100] if isinstance(license_name, str) else "",
        "languages": [one[:20] for one in listed if isinstance(one, str)][:20],
    }


def hash_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of files' names and contents."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}:{hash_file(path)}\n".encode())
    return total.hexdigest()
