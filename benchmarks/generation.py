"""Tokens a second at batch 1 and one thread: ours against transformers' generate, and against memory's speed.

    .venv/bin/python benchmarks/generation.py [--new-tokens 96] [--large]

Weights are random; greedy, both in the same process, in fp32 and bfloat16, the faster of the two on each side counts.
CPU seconds of the process are charged, so a busy machine does not favour either. The limit: bytes of the weights a
token against what a large copy moves (read and written) in this run. With --large, a model of more than 100 million
parameters is set against that limit.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from results import Figure, parse_folder, report

from lightlm.generation import Generator, SamplingConfig
from lightlm.model.config import ModelConfig
from lightlm.model.hugging_face import describe_config
from lightlm.model.transformer import Transformer

SMALL = {"vocab_size": 16384, "num_layers": 6, "model_dim": 320, "num_heads": 5, "ffn_dim": 768}
LARGE = {"vocab_size": 32768, "num_layers": 12, "model_dim": 768, "num_heads": 12, "ffn_dim": 2048}
PROMPT = [5, 17, 300, 42]
COPY_BYTES = 256_000_000


class Ids(NamedTuple):
    """What a generator asks of a tokenizer when only ids are wanted."""

    vocab_size: int
    end_of_text_id: int = 0


def build(shape: dict[str, int], dtype: torch.dtype) -> Transformer:
    """Return a model with random weights."""
    heads = shape["num_heads"]
    config = ModelConfig(**shape, num_kv_heads=heads, head_dim=64, context_length=1024, tie_embeddings=False)
    model = Transformer(config)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.05 if weight.dim() > 1 else weight)
    model.compute_dtype = dtype
    return model.eval()


def charge(action: Callable[[], object], rounds: int = 3) -> float:
    """Return the least CPU seconds of an action."""
    action()
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        action()
        best = min(best, time.process_time() - started)
    return best


def copy_rate() -> float:
    """Return bytes a second that one thread moves, read and written."""
    source = torch.ones(COPY_BYTES // 4)
    target = torch.zeros_like(source)
    return 2 * COPY_BYTES / charge(lambda: target.copy_(source))


def ours(shape: dict[str, int], dtype: torch.dtype, new_tokens: int) -> tuple[float, list[int]]:
    """Return tokens a CPU second, and the ids."""
    generator = Generator(build(shape, dtype), Ids(shape["vocab_size"]))  # pyright: ignore[reportArgumentType]
    sampling = SamplingConfig(
        max_new_tokens=new_tokens, temperature=0, top_k=0, top_p=1.0, repetition_penalty=1.0, seed=None
    )
    ids: list[int] = []

    def write() -> None:
        ids[:] = [row[0] for row in generator.choose_ids([PROMPT], sampling)]

    return new_tokens / charge(write), ids


def theirs(shape: dict[str, int], dtype: torch.dtype, new_tokens: int) -> tuple[float, list[int]]:
    """Return tokens a CPU second of transformers' generate with the same weights, and the ids."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from lightlm.model.hugging_face import list_weights

    model = build(shape, torch.float32)
    values = describe_config(model.config, 0)
    with tempfile.TemporaryDirectory() as folder:
        AutoConfig.for_model(**values).save_pretrained(Path(folder))
        rival = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    rival.load_state_dict(dict(list_weights(model)))
    rival = rival.to(dtype).eval()
    rival.generation_config.eos_token_id = None
    prompt = torch.tensor([PROMPT])
    ids: list[int] = []

    def write() -> None:
        with torch.inference_mode():
            written = rival.generate(
                prompt, do_sample=False, max_new_tokens=new_tokens, attention_mask=torch.ones_like(prompt)
            )
        ids[:] = written[0, len(PROMPT) :].tolist()

    return new_tokens / charge(write, 2), ids


def main() -> None:
    """Measure, compare, report."""
    options = parse_folder(__doc__ or "", new_tokens={"type": int, "default": 96}, large={"action": "store_true"})
    torch.set_num_threads(1)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    mine = {name: ours(SMALL, dtype, options.new_tokens) for name, dtype in dtypes.items()}
    rival = {name: theirs(SMALL, dtype, options.new_tokens) for name, dtype in dtypes.items()}
    count = sum(weight.numel() for weight in build(SMALL, torch.float32).parameters())
    best, other = max(rate for rate, _ in mine.values()), max(rate for rate, _ in rival.values())
    name = f"{count / 1e6:.0f}M, batch 1"
    same = mine["fp32"][1] == rival["fp32"][1]
    figures = [Figure(name, best, "tokens/CPU s", 3, rival=other, rival_name="transformers generate")]
    print(f"the fp32 ids are {'the same' if same else 'NOT the same'}")
    details = {
        "ours": {key: rate for key, (rate, _) in mine.items()},
        "transformers": {key: rate for key, (rate, _) in rival.items()},
        "same_ids": same,
    }
    if options.large:
        model = build(LARGE, torch.float32)
        count = sum(weight.numel() for weight in model.parameters())
        # One row of the embedding is read a token, all of the head.
        read = count - model.embedding.numel()
        del model
        moved = copy_rate()
        for key, dtype in dtypes.items():
            rate, _ = ours(LARGE, dtype, options.new_tokens // 2)
            used = rate * read * dtype.itemsize
            details[f"large {key}"] = {"tokens_per_second": rate, "bytes_per_second": used}
            label = f"{count / 1e6:.0f}M {key}, weights read"
            figures.append(
                Figure(label, used / 1e9, "GB/s", 0.6, "share", limit=moved / 1e9, limit_name="copy, read + write")
            )
    report("generation", figures, options.out, details)


if __name__ == "__main__":
    main()
