"""What a run does with each corpus, in a process of its own: refused, or trained five steps; how
long, how much memory.

A fork server: torch is imported once. A line of JSON in (a corpus), a line of JSON out.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from lightlm.store.home import find_home


def read_peak() -> float:
    """Return the largest memory of this process since it was last reset, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def train_on(request: dict[str, Any], answer: dict[str, Any]) -> None:
    """Do what a run does, from the glance at the data to five steps; fill in what was met on the
    way.
    """
    from lightlm.data.loader import ThreadedDataLoader
    from lightlm.data.shards import tokenize_subset
    from lightlm.data.subset import check_dataset, materialize_subset
    from lightlm.data.tokenization.tokenizer import prepare_tokenizer
    from lightlm.model.config import ModelConfig
    from lightlm.params import load_params
    from lightlm.training.config import TrainerConfig
    from lightlm.training.device import build_model
    from lightlm.training.events import StepDone
    from lightlm.training.optimizer import Optimizer
    from lightlm.training.stop_criterion import StepCriterion
    from lightlm.training.trainer import train

    started = time.monotonic()
    params = load_params(overrides=request["overrides"], dataset=request["path"])
    check_dataset(params.dataset, 16)
    answer["glance_seconds"] = time.monotonic() - started
    subset = materialize_subset(find_home(), params.dataset, needed_bytes=(2_000_000,))
    answer["counts"] = {
        "documents": subset.num_documents,
        "bytes": subset.num_bytes,
        "held_out": subset.num_validation_documents,
        "duplicates": subset.record.exact_duplicates,
        "empty": subset.record.empty_rows,
        "replaced": subset.record.replaced_bytes,
    }

    tokenizer = prepare_tokenizer(find_home(), params.tokenizer, subset, [300])
    shards = tokenize_subset(find_home(), subset, tokenizer)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size, num_layers=1, model_dim=16, num_heads=2, num_kv_heads=1, head_dim=8,
        ffn_dim=32, context_length=16,
    )  # fmt: skip

    config = TrainerConfig(batch_tokens=64, micro_batch_size=4, max_steps=5)
    model = build_model(shape, config)
    with ThreadedDataLoader(
        shards.tokens("train"), context_length=16, batch_size=4, seed=0
    ) as batches:
        events = train(model, Optimizer(model, config), batches, config, StepCriterion(5))
        answer["losses"] = [event.loss for event in events if isinstance(event, StepDone)]


def try_corpus(request: dict[str, Any], write: Any) -> None:
    """Be the process of one corpus; never returns."""
    from lightlm.errors import LightLMError

    os.environ["LIGHTLM_HOME"] = request["home"]
    answer: dict[str, Any] = {}
    reset_peak()
    before = read_peak()
    started = time.monotonic()

    try:
        train_on(request, answer)
    except LightLMError as error:
        answer["refused"] = str(error)
        answer["code"] = error.exit_code
    except BaseException as error:  # noqa: BLE001  (told to the test)
        import traceback

        answer["broken"] = repr(error) + traceback.format_exc()

    answer["seconds"] = time.monotonic() - started
    answer["megabytes"] = read_peak() - before
    write.write(json.dumps(answer) + "\n")
    write.flush()
    os._exit(0)


def main() -> None:
    import torch
    import transformers  # noqa: F401

    import lightlm.data.source
    import lightlm.training.trainer  # noqa: F401

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try_corpus(json.loads(line), answers)
        _, status = os.waitpid(child, 0)
        if status:
            with contextlib.suppress(OSError):
                answers.write(json.dumps({"broken": f"it ended with status {status}"}) + "\n")
                answers.flush()


if __name__ == "__main__":
    main()
