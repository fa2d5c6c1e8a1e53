"""Tokens a second at batch 1 and one thread: ours against transformers' generate, and against
memory's speed.

    .venv/bin/python benchmarks/generation.py [--new-tokens 96] [--small-only]

Weights are random and fp32, as a registered version's are. Sampled as by default (temperature 0.8,
top_k 50, top_p 0.95), and greedy, where the ids are compared; of transformers' fp32 and bfloat16
the faster counts. CPU seconds of the process are charged, so a busy machine does not favour either.
The limit: bytes of the weights a token against what a large copy moves (read and written) in this
run; a model of more than 100 million parameters is set against it.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from results import Figure, parse_folder, report

from lightlm.generation.sampling import SamplingConfig
from lightlm.generation.text import Generator
from lightlm.model.config import ModelConfig
from lightlm.model.hugging_face import describe_config, list_weights
from lightlm.model.transformer import Transformer

SMALL = {"vocab_size": 16384, "num_layers": 6, "model_dim": 320, "num_heads": 5, "ffn_dim": 768}
LARGE = {"vocab_size": 32768, "num_layers": 12, "model_dim": 768, "num_heads": 12, "ffn_dim": 2048}
PROMPT = [5, 17, 300, 42]
COPY_BYTES = 256_000_000
COPY = "by copy, read + write"


class Ids(NamedTuple):
    """What a generator asks of a tokenizer when only ids are wanted."""

    vocab_size: int
    end_of_text_id: int = 0


def build(shape: dict[str, int], dtype: torch.dtype) -> Transformer:
    """Return a model with random weights."""
    heads = shape["num_heads"]
    config = ModelConfig.model_validate(
        shape
        | {
            "num_kv_heads": heads,
            "head_dim": 64,
            "context_length": 1024,
            "tie_embeddings": False,
        }
    )
    model = Transformer(config)
    draw = torch.Generator().manual_seed(0)

    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(
                torch.randn(weight.shape, generator=draw) * 0.05 if weight.dim() > 1 else weight
            )

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


GREEDY = SamplingConfig(
    max_new_tokens=96, temperature=0, top_k=0, top_p=1.0, repetition_penalty=1.0, seed=None
)
SAMPLED = GREEDY.model_copy(update={"temperature": 0.8, "top_k": 50, "top_p": 0.95, "seed": 1})


def ours(model: Transformer, sampling: SamplingConfig) -> tuple[float, list[int]]:
    """Return tokens a CPU second, and the ids."""
    ids_only = Ids(model.config.vocab_size)
    generator = Generator(model, ids_only)  # pyright: ignore[reportArgumentType]
    ids: list[int] = []

    def write() -> None:
        ids[:] = [row[0] for row in generator.choose_ids([PROMPT], sampling)]

    return sampling.max_new_tokens / charge(write), ids


def open_rival(shape: dict[str, int]) -> Any:
    """Return transformers' model with the same weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = build(shape, torch.float32)
    values = describe_config(model.config, 0)
    with tempfile.TemporaryDirectory() as folder:
        AutoConfig.for_model(**values).save_pretrained(Path(folder))
        rival = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    rival.load_state_dict(dict(list_weights(model)))
    return rival.eval()


def theirs(rival: Any, sampling: SamplingConfig) -> tuple[float, list[int]]:
    """Return tokens a CPU second of transformers' generate, and the ids."""
    prompt = torch.tensor([PROMPT])
    how: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        how = {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k}
        how["top_p"] = sampling.top_p

    rival.generation_config.eos_token_id = None
    ids: list[int] = []

    def write() -> None:
        with torch.inference_mode():
            written = rival.generate(
                prompt,
                max_new_tokens=sampling.max_new_tokens,
                attention_mask=torch.ones_like(prompt),
                **how,
            )
        ids[:] = written[0, len(PROMPT) :].tolist()

    return sampling.max_new_tokens / charge(write, 2), ids


def count_read(model: Transformer) -> int:
    """Return the weights that are read a token: one row of the embedding, all of the head."""
    return sum(weight.numel() for weight in model.parameters()) - model.embedding.numel()


def main() -> None:
    """Measure, compare, report."""
    options = parse_folder(
        __doc__ or "", new_tokens={"type": int, "default": 96}, small_only={"action": "store_true"}
    )
    torch.set_num_threads(1)
    moved = copy_rate()
    kinds = {
        name: sampling.model_copy(update={"max_new_tokens": options.new_tokens})
        for name, sampling in (("sampled", SAMPLED), ("greedy", GREEDY))
    }

    model = build(SMALL, torch.float32)
    rival = open_rival(SMALL)
    size = sum(weight.numel() for weight in model.parameters()) / 1e6
    # Ours and theirs in turns, so that a change of the machine meets both.
    mine: dict[str, tuple[float, list[int]]] = {}
    other: dict[str, dict[str, tuple[float, list[int]]]] = {"fp32": {}, "bf16": {}}

    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rival = rival.to(dtype)
        for kind, sampling in kinds.items():
            mine[kind] = max(mine.get(kind, (0.0, [])), ours(model, sampling))
            other[precision][kind] = theirs(rival, sampling)

    figures = []
    for kind, weight_bytes in (("sampled", 2), ("greedy", 4)):
        best = max(other[precision][kind][0] for precision in other)
        bound = moved / count_read(model) / weight_bytes
        figures.append(
            Figure(
                f"{size:.0f}M, batch 1, {kind}",
                mine[kind][0],
                "tokens/CPU s",
                3,
                rival=best,
                rival_name="transformers generate",
                limit=bound,
                limit_name=COPY,
            )
        )

    same = mine["greedy"][1] == other["fp32"]["greedy"][1]
    print(f"the greedy fp32 ids are {'the same' if same else 'NOT the same'}")
    details: dict[str, Any] = {
        "ours": {kind: rate for kind, (rate, _) in mine.items()},
        "transformers": {
            name: {kind: rate for kind, (rate, _) in found.items()} for name, found in other.items()
        },
        "same_ids": same,
        "copy_bytes_per_second": moved,
    }

    for name, dtype in (
        {} if options.small_only else {"fp32": torch.float32, "bf16": torch.bfloat16}.items()
    ):
        large = build(LARGE, dtype)
        size = sum(weight.numel() for weight in large.parameters()) / 1e6
        moved = copy_rate()  # as near as can be to what it is compared to
        rate, _ = ours(
            large, kinds["greedy"].model_copy(update={"max_new_tokens": options.new_tokens // 2})
        )
        used = rate * count_read(large) * dtype.itemsize
        details[f"large {name}"] = {"tokens_per_second": rate, "bytes_per_second": used}
        figures.append(
            Figure(
                f"{size:.0f}M {name}, weights read",
                used / 1e9,
                "GB/s",
                0.6,
                "share",
                limit=moved / 1e9,
                limit_name=COPY,
            )
        )
        del large

    report("generation", figures, options.out, details)


if __name__ == "__main__":
    main()
