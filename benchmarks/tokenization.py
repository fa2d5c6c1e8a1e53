"""Text to shards on disk against `datasets.map` and group_texts: same text, same tokenizer.json,
all cores for both.

    .venv/bin/python benchmarks/tokenization.py [--text FILE] [--megabytes 24] [--memory-megabytes
    1000]

Without --text, the prose of the installed packages' documentation, repeated to the size. Both
pipelines begin at a text file and end at token files on disk; ids are compared. With
--memory-megabytes, a text of that size goes through ours alone and the peak of all its processes'
memory is watched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from results import Figure, parse_folder, report

from lightlm.store.home import find_home

RIVAL_CONTEXT = 1024


def make_text(path: Path, num_bytes: int, given: Path | None) -> None:
    """Write a text of `num_bytes`: that of `given`, or of documentation, again and again."""
    from lightlm.data.files.python_docs import read_python_docs

    seed = (
        given.read_bytes()
        if given
        else "\n\n".join(take_bytes(read_python_docs(), 8_000_000)).encode()
    )
    with path.open("wb") as file:
        written = 0
        while written < num_bytes:
            written += file.write(seed[: num_bytes - written])


def take_bytes(texts: Iterator[str], num_bytes: int) -> Iterator[str]:
    """Yield texts until they have `num_bytes`."""
    taken = 0
    for text in texts:
        yield text
        taken += len(text)
        if taken > num_bytes:
            return


def ours(text: Path, folder: Path) -> dict[str, Any]:
    """Return seconds and counts of our way from the text to shards, in a store of its own."""
    os.environ["LIGHTLM_HOME"] = str(folder)
    from lightlm.data.shards import tokenize_subset
    from lightlm.data.subset import materialize_subset
    from lightlm.data.tokenization.tokenizer import prepare_tokenizer
    from lightlm.params import load_params

    params = load_params(dataset=str(text), overrides={"dataset.max_validation_bytes": 1000})
    started = time.perf_counter()
    subset = materialize_subset(find_home(), params.dataset)
    read = time.perf_counter()
    tokenizer = prepare_tokenizer(find_home(), params.tokenizer, subset, [8192])
    trained = time.perf_counter()
    shards = tokenize_subset(find_home(), subset, tokenizer)
    done = time.perf_counter()

    return {
        "subset_seconds": read - started,
        "shards_seconds": done - trained,
        "num_tokens": shards.num_train_tokens,
        "num_bytes": subset.num_bytes,
        "tokenizer": str(tokenizer.folder),
        "text": str(subset.text_path("train")),
        "ids": str(shards.folder / "train-00000.bin"),
    }


def theirs(text: Path, tokenizer: str, folder: Path) -> dict[str, Any]:
    """Return seconds and tokens of load_dataset, map(tokenize), map(group_texts),
    written to disk.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "TOKENIZERS_PARALLELISM": "false"}
    import datasets
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    engine = PreTrainedTokenizerFast(tokenizer_file=f"{tokenizer}/tokenizer.json")
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )

    def group_texts(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {key: [index for row in value for index in row] for key, value in rows.items()}
        end = len(joined["input_ids"]) // RIVAL_CONTEXT * RIVAL_CONTEXT
        cut = {
            key: [v[i : i + RIVAL_CONTEXT] for i in range(0, end, RIVAL_CONTEXT)]
            for key, v in joined.items()
        }
        return cut | {"labels": cut["input_ids"].copy()}

    started = time.perf_counter()
    rows = datasets.load_dataset("text", data_files=str(text), split="train", keep_linebreaks=True)
    encoded = rows.map(
        lambda batch: engine(batch["text"]), batched=True, num_proc=cores, remove_columns=["text"]
    )
    grouped = encoded.map(group_texts, batched=True, num_proc=cores)

    return {
        "seconds": time.perf_counter() - started,
        "num_tokens": len(grouped) * RIVAL_CONTEXT,
        "cores": cores,
    }


def agrees(result: dict[str, Any]) -> bool:
    """Return whether the first ids on disk are those of tokenizers for the same text."""
    import numpy as np
    from tokenizers import Tokenizer

    engine = Tokenizer.from_file(f"{result['tokenizer']}/tokenizer.json")
    engine.encode_special_tokens = True
    with Path(result["text"]).open("rb") as file:
        start = file.read(100_000).decode("utf-8", "ignore")
    wanted = engine.encode(start, add_special_tokens=False).ids
    found = np.fromfile(result["ids"], dtype="<u2", count=len(wanted) + 1)[1:].tolist()

    # Documents end at passages of running text, where a word may be cut; so the common start is
    # compared.
    return found[:1000] == wanted[:1000]


def watch_memory(action: Callable[[], object]) -> int:
    """Return the peak resident bytes of the processes that `action` starts, while it runs."""
    peak = 0
    is_done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_done.wait(0.1):
            peak = max(peak, sum(map(resident, psutil.Process().children(recursive=True))))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    action()
    is_done.set()
    thread.join()

    return peak


def resident(process: psutil.Process) -> int:
    """Return a process's resident bytes; 0 when it has ended."""
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def measure_memory(text: Path, folder: Path) -> dict[str, float]:
    """Return peak bytes and seconds of our way, in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--only-ours", str(text), "--out", str(folder)]
    peak = watch_memory(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    return {
        "peak_bytes": peak,
        "seconds": time.perf_counter() - started,
        "num_bytes": text.stat().st_size,
    }


def main() -> None:
    """Measure, compare, report."""
    options = parse_folder(
        __doc__ or "",
        text={"type": Path},
        megabytes={"type": int, "default": 24},
        memory_megabytes={"type": int, "default": 0},
        only_ours={"type": Path},
    )

    if options.only_ours:
        ours(options.only_ours, options.out)
        return

    folder = Path(tempfile.mkdtemp(prefix="lightlm-tokenization-"))
    try:
        text = folder / "text.txt"
        make_text(text, options.megabytes * 1_000_000, options.text)
        mine = ours(text, folder / "home")
        rival = theirs(text, mine["tokenizer"], folder / "rival")
        size = text.stat().st_size / 1e6
        pipeline = mine["subset_seconds"] + mine["shards_seconds"]
        figures = [
            Figure(
                "text to shards",
                size / pipeline,
                "MB/s",
                3,
                rival=size / rival["seconds"],
                rival_name="datasets.map + group_texts",
            )
        ]
        details = {"ours": mine, "rival": rival, "same_ids": agrees(mine)}
        print(
            f"subset {mine['subset_seconds']:.2f} s, shards {mine['shards_seconds']:.2f} s; "
            f"details: {details}"
        )
        if options.memory_megabytes:
            text.unlink()
            make_text(text, options.memory_megabytes * 1_000_000, options.text)
            memory = measure_memory(text, folder / "memory")
            details["memory"] = memory
            name = f"peak memory, {options.memory_megabytes:,} MB of text"
            figures.append(
                Figure(name, memory["peak_bytes"] / 1e9, "GB", 1, "value", is_lower_better=True)
            )
        report("tokenization", figures, options.out, details)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
