"""Whether llama.cpp computes from an exported GGUF what transformers computes from the same
version: ids, logits, text.

Wants llama-cpp-python, which is no dependency of ours: `pip install llama-cpp-python` compiles it
(cmake and a C++ compiler, some minutes). Then, with two exports of one version:

    lightlm export as-hf --to hf && lightlm export as-gguf --to gguf
    python benchmarks/llama_cpp_agreement.py as-hf as-gguf text.txt
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 96
PIECES = 100
CONTINUED = 60
"""Tokens of a piece whose logits are compared; pieces of text that are tokenized; tokens of a
greedy continuation.
"""

HARD = (
    "1914 and 30000 men, 12345.",
    "It's don't I'LL we'd",
    "naïve café — “quoted” 日本語 🙂",
    "a\n\n\nb\r\n c\t\td   e",
    "x = y+=1; // {z}",
)
FULL_PRECISION = 0
"""llama.cpp's type number of fp32, for its cache of keys and values; by default that is fp16."""


def compare(as_hf: Path, as_gguf: Path, text: str) -> dict[str, Any]:
    """Return how often ids, likeliest tokens and greedy texts are equal, and the largest difference
    of a logit.
    """
    import torch
    from llama_cpp import Llama  # pyright: ignore[reportMissingImports]
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        as_hf, local_files_only=True, dtype=torch.float32
    ).eval()
    tokenizer = Tokenizer.from_file(str(as_hf / "tokenizer.json"))
    context = model.config.max_position_embeddings
    llama = Llama(
        str(as_gguf / "model.gguf"),
        n_ctx=context,
        logits_all=True,
        verbose=False,
        type_k=FULL_PRECISION,
        type_v=FULL_PRECISION,
    )

    step = max(1, len(text) // PIECES)
    pieces = [*HARD, *(text[i : i + 400] for i in range(0, len(text), step))]
    ids = [tokenizer.encode(piece, add_special_tokens=False).ids for piece in pieces]
    theirs = [llama.tokenize(piece.encode(), add_bos=False, special=False) for piece in pieces]
    largest = 0.0
    num_same = 0
    num_tokens = 0
    num_texts = 0
    num_same_texts = 0

    for row in ids[len(HARD) :: 10]:
        row = row[: min(LENGTH, context)]
        llama.reset()
        llama.eval(row)
        with torch.inference_mode():
            ours = model(torch.tensor([row])).logits[0].numpy()
        other = np.array(llama.scores[: len(row)])
        largest = max(largest, float(np.abs(ours - other).max()))
        num_same += int((ours.argmax(-1) == other.argmax(-1)).sum())
        num_tokens += len(row)
        begin = row[:4]
        length = min(CONTINUED, context - 4)
        whole = model.generate(torch.tensor([begin]), do_sample=False, max_new_tokens=length)[
            0
        ].tolist()
        llama.reset()
        continued = list(begin)
        for token in llama.generate(begin, temp=0.0, top_k=1, repeat_penalty=1.0):
            continued.append(token)
            if len(continued) == len(whole):
                break
        num_texts += 1
        num_same_texts += continued == whole

    return {
        "pieces": len(pieces),
        "pieces_with_equal_ids": sum(a == b for a, b in zip(ids, theirs, strict=True)),
        "tokens": num_tokens,
        "likeliest_token_equal": num_same,
        "largest_logit_difference": largest,
        "greedy_texts": num_texts,
        "greedy_texts_equal": num_same_texts,
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, what in (
        ("as_hf", "a folder of `export --to hf`"),
        ("as_gguf", "one of `export --to gguf`"),
    ):
        parser.add_argument(name, type=Path, help=what)

    parser.add_argument("text", type=Path, help="any text, for ids and prompts")
    given = parser.parse_args()
    try:
        text = given.text.read_text(encoding="utf-8", errors="replace")[:1_000_000]
        print(json.dumps(compare(given.as_hf, given.as_gguf, text), indent=2))
    except ImportError as error:
        sys.exit(f"{error}; pip install llama-cpp-python")


if __name__ == "__main__":
    main()
