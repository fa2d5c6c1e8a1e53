"""The tokenizer: a byte-level BPE trained on the subset, or one that is loaded; lossless either
way.

Checks make sure that no text is lost. Special tokens inside documents are read as plain text.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from lightlm.data.corpus import Corpus, open_part
from lightlm.data.files.local_path import find_local_path
from lightlm.data.subset import TextSubset
from lightlm.data.tokenization.adoption import END_OF_TEXT
from lightlm.data.tokenization.checks import parse_tokenizer, read_end_of_text, read_tokenizer_file
from lightlm.data.tokenization.token_bytes import TokenBytes
from lightlm.data.tokenization.trial import adopt, library_errors
from lightlm.errors import DatasetError, TokenizerError
from lightlm.json_object import JsonObject
from lightlm.params import TokenizerParams
from lightlm.store.lock import ignore
from lightlm.store.remembered import read_json
from lightlm.store.shared import Shareable
from lightlm.store.stage import Stage, find_any, open_stage

FORMAT = 2
KIND = "tokenizers"

SPLIT = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where words end: Llama 3's rule, which llama.cpp has as llama-bpe, so that both cut every text
alike. It has no rule with two digits a token, as nanochat cuts numbers; what that costs stands in
docs/planner.md.
"""

BASE_FILE = "base.json"
"""File of a folder with a base, or with a model that was trained from one: its origin."""

LOSSLESS_FILE = "lightlm_tokenizer.json"
"""File of such a folder: its tokenizer as training reads text with it, next to its own one."""

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
    token_bytes: TokenBytes = field(repr=False, compare=False)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; lone surrogates, which UTF-8 cannot hold, become U+FFFD."""
        with library_errors(f"{self.folder} cannot encode a text"):
            return self.engine.encode(_mend(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of several texts, computed on all cores."""
        with library_errors(f"{self.folder} cannot encode a text"):
            encoded = self.engine.encode_batch_fast(
                [_mend(text) for text in texts], add_special_tokens=False
            )
        return [one.ids for one in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 show as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the exact bytes of ids; of end-of-text none."""
        return b"".join(self.token_bytes.of(index) for index in ids if index != self.end_of_text_id)


def check_tokenizer_source(home: Path, params: TokenizerParams) -> None:
    """Refuse at once a tokenizer that is not there, is malformed or loses text; one of the Hub when
    it is needed.

    Raises:
        TokenizerError: with what to do.
    """
    if params.source != "train" and _find_local(params.source) is not None:
        _adopt(home, params.source, ignore)


def prepare_tokenizer(
    home: Path,
    params: TokenizerParams,
    subset: TextSubset,
    vocab_sizes: Sequence[int],
    *,
    report: Callable[[str], None] = ignore,
) -> Tokenizer:
    """Return a tokenizer trained on the subset with `vocab_sizes[0]` entries, or the one that
    `params` name.

    One with another of `vocab_sizes` is taken if it is in the store and the first is not. Too
    little text for so many entries gives fewer; `vocab_size` of the result says how many.

    Raises:
        TokenizerError: the one named is not there, or would lose text.
    """
    if subset is not None and subset.corpus is not None:
        return _open_corpus_tokenizer(home, params, subset.corpus, report)
    if params.source == "train":
        keys = [_training_key(params, subset, size) for size in vocab_sizes]
        stage = find_any(home, KIND, keys, SHAREABLE, report=report) or open_stage(
            home,
            KIND,
            keys[0],
            lambda folder: _train(folder, subset, vocab_sizes[0], params.max_training_bytes),
            shareable=SHAREABLE,
            report=report,
        )
    else:
        stage = _adopt(home, params.source, report)
        for note in stage.meta["notes"]:
            report(f"{params.source}: {note}")

    return _open(stage)


def _open_corpus_tokenizer(
    home: Path, params: TokenizerParams, corpus: Corpus, report: Callable[[str], None]
) -> Tokenizer:
    """Return the tokenizer that a corpus was tokenized with.

    Raises:
        TokenizerError: params ask for another one.
    """
    tokenizer = _open(open_part(home, corpus, KIND, SHAREABLE, report=report))
    if params.source != "train" or params.vocab_size not in (None, tokenizer.vocab_size):
        raise TokenizerError(
            f"{corpus.url} is tokenized already, with {tokenizer.vocab_size:,} entries; leave "
            "tokenizer.source and tokenizer.vocab_size as they are, or make another corpus"
        )
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder that holds a tokenizer.json: a stage's, a model's, a Hub
    copy's.

    Raises:
        TokenizerError: there is none, or it has no end-of-text token.
    """
    return _open(Stage(folder, folder.name, {}, reused=True))


def _training_key(params: TokenizerParams, subset: TextSubset, vocab_size: int) -> JsonObject:
    return {
        "format": FORMAT,
        "subset": subset.fingerprint,
        "vocab_size": vocab_size,
        "max_training_bytes": params.max_training_bytes,
    }


def _open(stage: Stage) -> Tokenizer:
    base = read_json(stage.folder / BASE_FILE)
    path = stage.folder / ("tokenizer.json" if base is None else LOSSLESS_FILE)
    try:
        content = read_tokenizer_file(path)
    except OSError:
        raise TokenizerError(
            f"{stage.folder} holds no {path.name}; give a folder that does"
        ) from None

    values = parse_tokenizer(content, str(path))
    with library_errors(f"{path} is no tokenizer that can be read"):
        engine = Engine.from_str(content.decode("utf-8"))
        engine.encode_special_tokens = True
        engine.no_padding()
        engine.no_truncation()

    named = read_end_of_text(read_json(stage.folder / "tokenizer_config.json"))
    end = engine.token_to_id((named if base is None else base.get("end_of_text")) or END_OF_TEXT)

    if end is None:
        raise TokenizerError(
            f"{path} has no end-of-text token; name it as eos_token in tokenizer_config.json"
        )

    tokens = TokenBytes(values, engine)
    return Tokenizer(
        stage.folder, stage.fingerprint, stage.reused, _count_ids(engine), end, engine, tokens
    )


def _train(folder: Path, subset: TextSubset, vocab_size: int, max_bytes: int) -> JsonObject:
    """Train a byte-level BPE on the first `max_bytes` of the training text."""
    # as llama.cpp has it; all entries are reached by merges anyway
    engine = Engine(models.BPE(ignore_merges=True))
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
    _save(folder, engine.to_str(), END_OF_TEXT)
    return {"vocab_size": _count_ids(engine), "source": "train"}


def _take_bytes(subset: TextSubset, max_bytes: int) -> Iterator[str]:
    taken = 0
    for document in subset.read_documents("train"):
        yield document[: max_bytes - taken].decode("utf-8", "ignore")
        taken += len(document)
        if taken >= max_bytes:
            return


def _adopt(home: Path, source: str, report: Callable[[str], None]) -> Stage:
    """Return a stage with the tokenizer that a source names, rewritten so that it loses no text.

    Raises:
        TokenizerError: it cannot be read or is malformed, or it loses text.
    """
    base = _find_base(source)
    content, named_end = base or _read_source(source)
    key = {"format": FORMAT, "content": hashlib.sha256(content).hexdigest(), "end": named_end}
    if base is not None:
        key["is_base"] = True

    def write(folder: Path) -> JsonObject:
        if base is not None:  # tried when the base was brought here
            _save(folder, content.decode("utf-8"), str(named_end))
            return {"source": source, "notes": []}
        adopted = adopt(content, source, named_end)
        _save(folder, adopted.text, adopted.end)
        return {"source": source, "notes": list(adopted.notes)}

    return open_stage(home, KIND, key, write, report=report)


def _save(folder: Path, tokenizer: str, end: str) -> None:
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
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


def _find_base(source: str) -> tuple[bytes, str | None] | None:
    """Return the lossless tokenizer of a base's folder, and its end of text; None for others."""
    folder = Path(source)
    base = read_json(folder / BASE_FILE)
    if base is None:
        return None
    return read_tokenizer_file(folder / LOSSLESS_FILE), base.get("end_of_text")


def _read_source(source: str) -> tuple[bytes, str | None]:
    """Return the content of a tokenizer.json, and the end of text that the config next to
    it names.
    """
    path = _find_local(source)
    if path is not None:
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            content = read_tokenizer_file(file)
        except OSError as error:
            raise TokenizerError(
                f"cannot read {file}: {error.strerror}; give a tokenizer.json or its folder"
            ) from None
        return content, read_end_of_text(read_json(file.parent / "tokenizer_config.json"))

    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    try:
        content = read_tokenizer_file(Path(hf_hub_download(source, "tokenizer.json")))
        try:
            config = read_json(Path(hf_hub_download(source, "tokenizer_config.json")))
        except EntryNotFoundError:
            config = None
    except (RepositoryNotFoundError, EntryNotFoundError):
        raise TokenizerError(
            f"the Hub has no tokenizer.json for {source!r}; check the id, or give a folder"
        ) from None
    except TokenizerError:
        raise
    except Exception as error:  # noqa: BLE001  (connection errors of whichever HTTP library the Hub's client uses)
        raise TokenizerError(
            f"the Hub is out of reach ({error}); give a folder or tokenizer.source=train"
        ) from None

    return content, read_end_of_text(config)


def _find_local(source: str) -> Path | None:
    try:
        return find_local_path(source)
    except DatasetError:
        raise TokenizerError(
            f"the tokenizer {source} does not exist; give train, a folder, a tokenizer.json, or a "
            "Hub id"
        ) from None


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
