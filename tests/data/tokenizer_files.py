"""Makes tokenizer.json files of the kinds that other people's tokenizers have; tests share them."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine
from tokenizers import pre_tokenizers

SPACE = "\u2581"
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}


def added(index: int, content: str, **flags: bool) -> dict[str, Any]:
    plain = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    }
    return {"id": index, "content": content} | plain | flags


def describe_model(vocab: Any, merges: Any = (), **fields: Any) -> dict[str, Any]:
    return {"type": "BPE", "vocab": vocab, "merges": [list(pair) for pair in merges]} | fields


def byte_level(
    merges: tuple[tuple[str, str], ...] = (("h", "e"), ("\u0120", "he")), **parts: Any
) -> dict[str, Any]:
    """Return a byte-level BPE as GPT-2's is; `parts` take the place of its own."""
    symbols = [*ALPHABET, *("".join(pair) for pair in merges)]
    end = added(len(symbols), "<|endoftext|>", special=True)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": dict(BYTE_LEVEL),
        "post_processor": None,
        "decoder": dict(BYTE_LEVEL),
        "model": describe_model({symbol: index for index, symbol in enumerate(symbols)}, merges),
    } | parts


def sentencepiece(
    words: str = "the hat this that", num_bytes: int = 256, **parts: Any
) -> dict[str, Any]:
    """Return a BPE as Llama 2's is: a symbol for spaces, one before a text, byte fallback, every
    merge there is.
    """
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(num_bytes))]
    tokens += sorted(set(words.replace(" ", SPACE)))
    joined: dict[str, None] = {}

    for word in words.split():
        for length in range(2, len(word) + 2):
            joined[(SPACE + word)[:length]] = None
            joined[word[:length]] = None

    tokens += [token for token in joined if token not in tokens]
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [
        (token[:middle], token[middle:])
        for token in tokens[3 + num_bytes :]
        for middle in range(1, len(token))
        if token[:middle] in vocab and token[middle:] in vocab
    ]

    mark = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    unmark = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    decoders = [unmark, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]

    return {
        "version": "1.0",
        "added_tokens": [
            added(index, token, special=True) for index, token in enumerate(tokens[:3])
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": SPACE}, mark],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": describe_model(
            vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        ),
    } | parts


def train_tokenizer(path: Path, text: str, vocab_size: int = 400) -> Engine:
    """Return an engine with the splitting rule of LightLM's own tokenizer, trained on a text and
    saved at a path.
    """
    from tokenizers import Regex, decoders, models, trainers

    from lightlm.data.tokenization.tokenizer import SPLIT

    engine = Engine(models.BPE(ignore_merges=True))
    splits = [
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(False, use_regex=False),
    ]
    engine.pre_tokenizer = pre_tokenizers.Sequence(splits)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=ALPHABET,
        show_progress=False,
    )

    engine.train_from_iterator([text], trainer)
    engine.save(str(path))
    return engine
