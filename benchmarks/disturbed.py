"""Is the deadline kept and the schedule annealed when the machine is disturbed? Whole commands with a busy neighbour.

    .venv/bin/python benchmarks/disturbed.py --dataset FILE [--hours 0.01]

Four runs in one home: undisturbed; with as many spinning processes as there are cores, from a third of the budget to
its end; with the training process stopped (SIGSTOP, as a suspended machine is) for a tenth of the budget; and with the
spinning processes from the start. Printed: seconds late, the last learning rate's factor, and the score's ratio.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from commands import run_train

HOG = [sys.executable, "-c", "while True: pass"]


def spin(delay: float, seconds: float) -> Callable[[], None]:
    """Return what keeps every core busy from `delay` on, for `seconds`."""

    def disturb() -> None:
        time.sleep(delay)
        hogs = [subprocess.Popen(HOG) for _ in os.sched_getaffinity(0)]
        time.sleep(seconds)
        for hog in hogs:
            hog.kill()
            hog.wait()

    return disturb


def stop_training(delay: float, seconds: float) -> Callable[[], None]:
    """Return what stops the training process at `delay` for `seconds`."""

    def disturb() -> None:
        time.sleep(delay)
        children = psutil.Process().children(recursive=True)
        trainers = [child for child in children if "lightlm.training.worker" in " ".join(child.cmdline())]
        if not trainers:
            sys.exit("no training process is there to be stopped")
        for trainer in trainers:
            trainer.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        for trainer in trainers:
            trainer.send_signal(signal.SIGCONT)

    return disturb


def main() -> None:
    """Run each, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--hours", type=float, default=0.01)
    given = parser.parse_args()
    budget = given.hours * 3600
    home = Path(tempfile.mkdtemp(prefix="lightlm-disturbed-"))
    disturbances = {
        "undisturbed": spin(0, 0),
        "neighbours after a third": spin(budget / 3, budget),
        "stopped for a tenth": stop_training(budget / 2, budget / 10),
        "neighbours all the time": spin(0, 1.5 * budget),
    }
    run_train(home, 0.001, given.dataset)
    quiet = None
    for name, disturb in disturbances.items():
        thread = threading.Thread(target=disturb, daemon=True)
        thread.start()
        run = run_train(home, given.hours, given.dataset, "tracking.promote=never")
        if name != "stopped for a tenth":
            for hog in psutil.Process().children():
                hog.kill()
        quiet = quiet or run["bits_per_byte"]
        late = run["stopwatch_seconds"] - budget
        verdict = "kept" if late <= max(4.0, 0.02 * budget) else "LATE"
        print(
            f"{name:26} {late:+5.1f} s by the stopwatch ({verdict}), rate ends at "
            f"{run['final_learning_rate_factor']:.3f}, {run['tokens'] / 1e6:.2f} M tokens, {run['bits_per_byte']:.3f} "
            f"bits per byte, x {run['bits_per_byte'] / quiet:.3f} of undisturbed",
            flush=True,
        )
        thread.join()
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
