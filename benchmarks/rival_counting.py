"""Rival (c): a counting model, no network: interpolated modified Kneser-Ney of order 6 over the
tokens of its own BPE.

32,768 entries, frozen on WikiText-2 (8,192: 1.538, 16,384: 1.536, 32,768: 1.533 bits per byte). It
uses the library's counting, reads all of the text, and ends long before its time.
"""

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lightlm.ngram.counts import count_grams
from lightlm.ngram.mixture import CountingModel

VOCAB_SIZE = 32768


def train_tokenizer(pieces: list[str]) -> Tokenizer:
    """Return a byte-level BPE of the text."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, pieces: list[str]) -> np.ndarray:
    """Return the ids of pieces, one after the other."""
    return np.concatenate(
        [np.asarray(e.ids, np.uint16) for e in tokenizer.encode_batch_fast(pieces)]
    )


def main() -> None:
    """Count train.txt and print the score of validation.txt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--text", type=Path, required=True, help="folder with train.txt, validation.txt"
    )
    text = parser.parse_known_args()[0].text  # a tokenizer, a time and threads: not needed
    pieces = (text / "train.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    held_out = (text / "validation.txt").read_text(encoding="utf-8")

    tokenizer = train_tokenizer(pieces)
    tokens = encode(tokenizer, pieces)
    model = CountingModel(count_grams(tokens, tokenizer.get_vocab_size()))
    # Its first token follows a line's end, as all others of the text do.
    stream = np.concatenate([tokens[-1:], encode(tokenizer, held_out.splitlines(keepends=True))])
    likely, _, _ = model.score(stream)

    bits = -float(np.log(likely).sum()) / math.log(2) / len(held_out.encode())
    print(json.dumps({"bits_per_byte": bits, "tokens": len(tokens)}))


if __name__ == "__main__":
    main()
