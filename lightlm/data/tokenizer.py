"""The tokenizer: a byte-level BPE trained on the subset, or one that is loaded; lossless either way.

Owns training, loading and the checks that no text is lost. Special tokens that stand in text are text.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from lightlm.data.local_path import find_local_path
from lightlm.data.subset import TextSubset
from lightlm.errors import DatasetError, TokenizerError
from lightlm.params import TokenizerParams
from lightlm.store.lock import ignore
from lightlm.store.shared import Shareable
from lightlm.store.stage import Stage, find_any, open_stage

FORMAT = 1
KIND = "tokenizers"
END_OF_TEXT = "<|endoftext|>"

SPLIT = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
"""Where words end, as GPT-4's tokenizer has it, with at most two digits a token: better at small vocabularies.
Source: nanochat, dev/LOG.md (.965 against .969 bits per byte at 32k entries)."""

TRIAL = "".join(map(chr, range(1, 0x250))) + " \u00e9\u4e2d\u6587 \U0001f600 a\u0301  \r\n\tend"
"""A text that a lossless tokenizer gives back: controls, Latin, Chinese, an emoji, a combining mark, white space."""

FOLDER_FILES = ("tokenizer.json", "tokenizer_config.json")

SHAREABLE = Shareable(re.compile("|".join(map(re.escape, FOLDER_FILES))))


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back. Ids are 0 to vocab_size - 1, the end-of-text token's among them."""

    folder: Path
    fingerprint: str
    reused: bool
    vocab_size: int
    end_of_text_id: int
    engine: Engine = field(repr=False, compare=False)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; lone surrogates, which UTF-8 cannot hold, become U+FFFD."""
        return self.engine.encode(_mend(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of several texts, computed on all cores."""
        encoded = self.engine.encode_batch_fast([_mend(text) for text in texts], add_special_tokens=False)
        return [one.ids for one in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 show as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the exact bytes of ids; of end-of-text none."""
        pieces = (self.engine.id_to_token(index) for index in ids if index != self.end_of_text_id)
        return b"".join(_token_bytes(piece) for piece in pieces if piece is not None)


def check_tokenizer_source(params: TokenizerParams) -> None:
    """Refuse at once a tokenizer's path that is not there.

    Raises:
        TokenizerError: with what to do.
    """
    if params.source != "train":
        _find_local(params.source)


def prepare_tokenizer(
    params: TokenizerParams,
    subset: TextSubset,
    vocab_sizes: Sequence[int],
    *,
    report: Callable[[str], None] = ignore,
) -> Tokenizer:
    """Return a tokenizer trained on the subset with `vocab_sizes[0]` entries, or the one that `params` name.

    One with another of `vocab_sizes` is taken if it is in the store and the first is not. Too little text for so many
    entries gives fewer; `vocab_size` of the result says how many.

    Raises:
        TokenizerError: the one named is not there, or would lose text.
    """
    if params.source == "train":
        keys = [_training_key(params, subset, size) for size in vocab_sizes]
        stage = find_any(KIND, keys, SHAREABLE, report=report) or open_stage(
            KIND,
            keys[0],
            lambda folder: _train(folder, subset, vocab_sizes[0], params.max_training_bytes),
            shareable=SHAREABLE,
            report=report,
        )
    else:
        content = _read_source(params.source)
        key = {"format": FORMAT, "content": content.decode("utf-8", "replace")}
        stage = open_stage(KIND, key, lambda folder: _adopt(folder, content, params.source, report), report=report)
    return _open(stage)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder that holds a tokenizer.json: a stage's, a model's, a Hub copy's.

    Raises:
        TokenizerError: there is none, or it has no end-of-text token.
    """
    return _open(Stage(folder, folder.name, {}, reused=True))


def _training_key(params: TokenizerParams, subset: TextSubset, vocab_size: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "subset": subset.fingerprint,
        "vocab_size": vocab_size,
        "max_training_bytes": params.max_training_bytes,
    }


def _open(stage: Stage) -> Tokenizer:
    path = stage.folder / "tokenizer.json"
    try:
        engine = Engine.from_str(path.read_text(encoding="utf-8"))
    except OSError:
        raise TokenizerError(f"{stage.folder} holds no tokenizer.json; give a folder that does") from None
    except Exception as error:  # noqa: BLE001  (the library raises bare Exception for a file that it cannot parse)
        raise TokenizerError(f"{path} is no tokenizer that can be read: {error}") from None
    engine.encode_special_tokens = True
    engine.no_padding()
    engine.no_truncation()
    config = _read_config(stage.folder)
    end = engine.token_to_id(config.get("eos_token") or END_OF_TEXT)
    if end is None:
        raise TokenizerError(f"{path} has no end-of-text token; name it as eos_token in tokenizer_config.json")
    return Tokenizer(stage.folder, stage.fingerprint, stage.reused, _count_ids(engine), end, engine)


def _train(folder: Path, subset: TextSubset, vocab_size: int, max_bytes: int) -> dict[str, Any]:
    """Train a byte-level BPE on the first `max_bytes` of the training text."""
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    engine.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(_take_bytes(subset, max_bytes), trainer)
    _save(folder, engine, END_OF_TEXT)
    return {"vocab_size": _count_ids(engine), "source": "train"}


def _take_bytes(subset: TextSubset, max_bytes: int) -> Iterator[str]:
    taken = 0
    for document in subset.read_documents("train"):
        yield document[: max_bytes - taken].decode("utf-8", "ignore")
        taken += len(document)
        if taken >= max_bytes:
            return


def _adopt(folder: Path, content: bytes, source: str, report: Callable[[str], None]) -> dict[str, Any]:
    """Write a loaded tokenizer, made lossless where bytes are missing.

    Raises:
        TokenizerError: it changes text, or is not byte-level.
    """
    try:
        values = json.loads(content)
        model = values["model"]
    except (ValueError, KeyError, TypeError):
        raise TokenizerError(f"{source} is no tokenizer.json; give one written by the tokenizers library") from None
    if model.get("type") != "BPE":
        raise TokenizerError(f"{source} is a {model.get('type')} model; wanted a byte-level BPE, which loses no text")
    values["post_processor"] = values["truncation"] = values["padding"] = None
    end = _find_end(values)
    missing = [symbol for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()) if symbol not in model["vocab"]]
    for token in values.get("added_tokens") or []:
        model["vocab"].setdefault(token["content"], token["id"])
    first_free = max(model["vocab"].values()) + 1
    model["vocab"].update({symbol: first_free + index for index, symbol in enumerate(missing)})
    if missing:
        report(f"{source} had no token for {len(missing)} of 256 bytes; they were added, so that no text is lost")
    try:
        engine = Engine.from_str(json.dumps(values))
    except Exception as error:  # noqa: BLE001  (the library raises bare Exception for what it cannot parse)
        raise TokenizerError(f"{source} cannot be read: {error}") from None
    if engine.token_to_id(end) is None:
        engine.add_special_tokens([AddedToken(end, special=True, normalized=False)])
    engine.encode_special_tokens = True
    trial = TRIAL + end
    back = engine.decode(engine.encode(trial, add_special_tokens=False).ids, skip_special_tokens=False)
    if back != trial:
        raise TokenizerError(
            f"{source} does not give a text back as it was (normalisation, or no byte-level decoder); "
            "give one that does, or tokenizer.source=train"
        )
    _save(folder, engine, end)
    return {"vocab_size": _count_ids(engine), "source": source}


def _find_end(values: dict[str, Any]) -> str:
    special = [token["content"] for token in values.get("added_tokens") or [] if token.get("special")]
    likely = [t for t in special if t in (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>")]
    return (likely or [END_OF_TEXT])[0]


def _save(folder: Path, engine: Engine, end: str) -> None:
    (folder / "tokenizer.json").write_text(engine.to_str(), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "unk_token": None,
        "pad_token": end,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _read_source(source: str) -> bytes:
    path = _find_local(source)
    if path is not None:
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            return file.read_bytes()
        except OSError as error:
            raise TokenizerError(f"cannot read {file}: {error.strerror}; give a tokenizer.json or its folder") from None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(source, "tokenizer.json")).read_bytes()
    except (RepositoryNotFoundError, EntryNotFoundError):
        raise TokenizerError(f"the Hub has no tokenizer.json for {source!r}; check the id, or give a folder") from None
    except Exception as error:  # noqa: BLE001  (connection errors of whichever HTTP library the Hub's client uses)
        raise TokenizerError(f"the Hub is out of reach ({error}); give a folder or tokenizer.source=train") from None


def _find_local(source: str) -> Path | None:
    try:
        return find_local_path(source)
    except DatasetError:
        raise TokenizerError(
            f"the tokenizer {source} does not exist; give train, a folder, a tokenizer.json, or a Hub id"
        ) from None


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _count_ids(engine: Engine) -> int:
    return max(engine.get_vocab(with_added_tokens=True).values()) + 1


def _mend(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text


def _byte_symbols() -> dict[str, int]:
    """Return the character that stands for each byte in a byte-level vocabulary, as GPT-2's encoder has it."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + index): b for index, b in enumerate(others)}


BYTE_SYMBOLS = _byte_symbols()


def _token_bytes(token: str) -> bytes:
    if all(symbol in BYTE_SYMBOLS for symbol in token):
        return bytes(BYTE_SYMBOLS[symbol] for symbol in token)
    return token.encode("utf-8")
