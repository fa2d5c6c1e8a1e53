"""By how much is a run late when something goes wrong? A table of overrun by fault, whole commands.

    .venv/bin/python benchmarks/disturbed.py --dataset FILE [--hours 0.005 --hours 0.01 --hours
    0.02] [--only stall ...]

Faults: MLflow that answers slowly, hangs, drips, never ends, asks for patience, fails, or is not
there; Prefect that hangs from the middle of the run on; a disk that takes 150 ms longer for each
fsync; the training process stopped (SIGSTOP, as a suspended machine is) for 10 s or a tenth of the
budget; as many spinning processes as there are cores, from a third of the budget or all the time;
three runs at once. Printed for each: seconds late by the ledger and by a stopwatch, whether the promise is kept
(max(2 s, 1 %) and max(4 s, 2 %)), the last learning rate's factor, and the share of the budget
used.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from commands import run_train
from faults import (
    ANSWERS,
    Answer,
    answer_each,
    build_slow_disk,
    delay,
    mlflow_server,
    pass_on,
    prefect_server,
    serve,
)

HOURS = (0.005, 0.01, 0.02)
HOG = [sys.executable, "-c", "while True: pass"]
Run = Callable[..., dict[str, Any]]


@contextlib.contextmanager
def beside(disturb: Callable[[threading.Event], None]) -> Iterator[None]:
    """Disturb from a thread while the run inside lasts."""
    over = threading.Event()
    thread = threading.Thread(target=disturb, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def spin(delay: float, over: threading.Event) -> None:
    """Keep every core busy from `delay` on."""
    if over.wait(delay):
        return
    hogs = [subprocess.Popen(HOG) for _ in os.sched_getaffinity(0)]
    over.wait()
    for hog in hogs:
        hog.kill()
        hog.wait()


def stop_training(delay: float, seconds: float, over: threading.Event) -> None:
    """Stop the training process from `delay` on for `seconds`."""
    over.wait(delay)
    children = psutil.Process().children(recursive=True)
    trainers = [
        child for child in children if "lightlm.training.worker" in " ".join(child.cmdline())
    ]
    for trainer in trainers:
        trainer.send_signal(signal.SIGSTOP)
    over.wait(seconds)
    for trainer in trainers:
        with contextlib.suppress(psutil.Error):
            trainer.send_signal(signal.SIGCONT)


def undisturbed(run: Run, budget: float) -> dict[str, Any]:
    """Run alone."""
    return run()


def with_mlflow(answer: Answer, run: Run, budget: float) -> dict[str, Any]:
    """Run with an MLflow that answers each request so."""
    with serve(answer_each(answer)) as url:
        return run(environment={"MLFLOW_TRACKING_URI": url})


def with_slow_mlflow(seconds: float, run: Run, budget: float) -> dict[str, Any]:
    """Run with an MLflow whose every answer is late."""
    with mlflow_server() as port, serve(delay(port, seconds)) as url:
        return run(environment={"MLFLOW_TRACKING_URI": url})


def without_mlflow(run: Run, budget: float) -> dict[str, Any]:
    """Run with an MLflow where nothing listens."""
    return run(environment={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})


def with_prefect(fraction: float, run: Run, budget: float) -> dict[str, Any]:
    """Run with a Prefect server that hangs from a fraction of the budget on."""
    with (
        prefect_server() as port,
        serve(pass_on(port, time.monotonic() + fraction * budget)) as url,
    ):
        return run(environment={"PREFECT_API_URL": f"{url}/api"})


def on_slow_disk(library: Path, run: Run, budget: float) -> dict[str, Any]:
    """Run where each fsync takes 150 ms more."""
    return run(environment={"LD_PRELOAD": str(library)})


def beside_hogs(fraction: float, run: Run, budget: float) -> dict[str, Any]:
    """Run beside spinning processes from a fraction of the budget on."""
    with beside(partial(spin, fraction * budget)):
        return run()


def stalled(fraction: float, seconds: float | None, run: Run, budget: float) -> dict[str, Any]:
    """Run with the training process stopped from a fraction of the budget on, for `seconds` or a
    tenth of the budget.
    """
    with beside(partial(stop_training, fraction * budget, seconds or budget / 10)):
        return run()


def three_at_once(run: Run, budget: float) -> dict[str, Any]:
    """Run three times at once; return the latest of them."""
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda seed: run(f"training.seed={seed}"), range(3)))
    return max(runs, key=lambda one: one["stopwatch_seconds"])


def list_faults(folder: Path) -> dict[str, Callable[[Run, float], dict[str, Any]]]:
    """Return what is tried, by name."""
    faults: dict[str, Callable[[Run, float], dict[str, Any]]] = {"undisturbed": undisturbed}
    faults |= {f"MLflow {name}": partial(with_mlflow, answer) for name, answer in ANSWERS.items()}
    faults |= {
        "MLflow answers 2 s late": partial(with_slow_mlflow, 2.0),
        "MLflow is not there": without_mlflow,
        "Prefect hangs from the middle": partial(with_prefect, 0.5),
        "Prefect hangs at the end": partial(with_prefect, 0.93),
        "stall of a tenth": partial(stalled, 0.6, None),
        "stall of 10 s": partial(stalled, 0.4, 10.0),
        "neighbors from a third": partial(beside_hogs, 1 / 3),
        "neighbors all the time": partial(beside_hogs, 0.0),
        "three runs at once": three_at_once,
    }

    if (library := build_slow_disk(folder)) is not None:
        faults["disk: 150 ms more a sync"] = partial(on_slow_disk, library)

    return faults


def describe(run: dict[str, Any], budget: float) -> str:
    """Return one run's figures."""
    ledger = run["elapsed_seconds"] - budget
    stopwatch = run["stopwatch_seconds"] - budget
    is_kept = ledger <= max(2.0, 0.01 * budget) and stopwatch <= max(4.0, 0.02 * budget)
    return (
        f"ledger {ledger:+5.1f} s, stopwatch {stopwatch:+5.1f} s "
        f"({'kept' if is_kept else 'LATE'}), rate ends at "
        f"{run['final_learning_rate_factor']:.3f}, {run['elapsed_seconds'] / budget:.0%} used, "
        f"{run['bits_per_byte']:.3f} bits per "
        f"byte{'' if run['model_version'] else ', to be registered later'}"
    )


def main() -> None:
    """Run each fault at each budget in a home that is in use; print a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--hours", action="append", type=float)
    parser.add_argument("--only", action="append", help="words of the faults to try")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="lightlm-disturbed-"))

    try:
        run_train(home, 0.005, given.dataset)
        for name, disturb in list_faults(home).items():
            if given.only and not any(word in name for word in given.only):
                continue
            for hours in given.hours or HOURS:
                run = partial(run_train, home, hours, given.dataset, "tracking.promote=never")
                print(
                    f"{name:30} {hours:6g} h  {describe(disturb(run, 3600 * hours), 3600 * hours)}",
                    flush=True,
                )
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
