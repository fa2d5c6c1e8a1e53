"""The planner's regret: its choice against the best of a grid of our own trainer, each in the same
time.

    .venv/bin/python benchmarks/regret.py --dataset FOLDER --hours 0.02 [--cores-a-run 1]

Each setting is a whole command with vocabulary, layers and width fixed; the planner's is the same
command without. All share one LIGHTLM_HOME whose tokenizers and shards are made before. With
--cores-a-run, runs are pinned to cores and as many go at once as there are cores for, so that a
grid takes an hour and no run disturbs another. Every run is a line of bench-results/regret.jsonl;
runs that are there are not done again. Regret = planner / best of the grid - 1.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from commands import ROOT, append, read, run_train

RESULTS = ROOT / "bench-results" / "regret.jsonl"
GRID = [
    *(
        (4096, layers, dim)
        for layers, dim in ((1, 64), (1, 128), (2, 128), (4, 128), (2, 192), (4, 192), (3, 256))
    ),
    *((2048, layers, dim) for layers, dim in ((1, 128), (2, 192))),
    *((8192, layers, dim) for layers, dim in ((1, 128), (1, 192), (2, 192), (2, 256))),
    *((16384, layers, dim) for layers, dim in ((1, 128), (1, 192))),
]
"""Vocabulary, layers, width: around what two CPU cores can train in minutes."""

SCOUT_HOURS = 0.001


def settings_of(setting: tuple[int, int, int] | None) -> list[str]:
    """Return the --set values of a setting; none for the planner's own choice."""
    if setting is None:
        return []
    vocab_size, layers, dim = setting
    return [
        f"tokenizer.vocab_size={vocab_size}",
        f"model.num_layers={layers}",
        f"model.model_dim={dim}",
    ]


def measure(
    home: Path, hours: float, dataset: str, setting: tuple[int, int, int] | None, cores: str
) -> None:
    """Make one run and keep its line."""
    prefix = ("taskset", "-c", cores) if cores else ()
    summary = run_train(
        home, hours, dataset, *settings_of(setting), "tracking.promote=never", prefix=prefix
    )
    record = {
        "dataset": Path(dataset).name,
        "hours": hours,
        "cores": cores,
        "setting": list(setting) if setting else "planner",
        "shape": summary["shape"],
        "is_compiled": summary["plan"]["trainer"]["compile"],
        "bits_per_byte": summary["bits_per_byte"],
        "is_whole": summary["score"]["is_whole"],
        "tokens": summary["tokens"],
        "stopwatch_seconds": summary["stopwatch_seconds"],
    }

    append(RESULTS, record)
    print(f"{record['setting']!s:18} {record['bits_per_byte']:.4f}  {record['shape']}", flush=True)


def run(home: Path, hours: float, dataset: str, cores_a_run: int | None) -> None:
    """Make what is missing of grid and planner, as many runs at once as there are cores for."""
    name = Path(dataset).name
    done = [r["setting"] for r in read(RESULTS) if r["dataset"] == name and r["hours"] == hours]
    wanted: list[tuple[int, int, int] | None] = [s for s in GRID if list(s) not in done]
    wanted += [None] * max(0, 2 - done.count("planner"))
    if not wanted:
        return

    for vocab_size in sorted({s[0] for s in GRID}):
        run_train(
            home,
            SCOUT_HOURS,
            dataset,
            f"tokenizer.vocab_size={vocab_size}",
            "tracking.promote=never",
        )

    slots: SimpleQueue[str] = SimpleQueue()
    all_cores = sorted(os.sched_getaffinity(0))
    width = cores_a_run or len(all_cores)
    for start in range(0, len(all_cores) - width + 1, width):
        slots.put(",".join(map(str, all_cores[start : start + width])) if cores_a_run else "")

    def take(setting: tuple[int, int, int] | None) -> None:
        cores = slots.get()
        try:
            measure(home / f"cores-{cores}" if cores else home, hours, dataset, setting, cores)
        finally:
            slots.put(cores)

    with ThreadPoolExecutor(slots.qsize()) as pool:
        list(pool.map(take, wanted))


def report(hours: float, dataset: str) -> None:
    """Print the grid, best first, and the regret."""
    runs = [r for r in read(RESULTS) if r["dataset"] == Path(dataset).name and r["hours"] == hours]
    for run_ in sorted(runs, key=lambda r: r["bits_per_byte"]):
        print(
            f"{run_['bits_per_byte']:.4f}  "
            f"{'PLANNER' if run_['setting'] == 'planner' else '       '}  {run_['shape']}"
        )

    planned = [r["bits_per_byte"] for r in runs if r["setting"] == "planner"]
    grid = [r["bits_per_byte"] for r in runs if r["setting"] != "planner"]
    if planned and grid:
        mean = sum(planned) / len(planned)
        print(
            f"regret at {hours:g} h on {Path(dataset).name}: {mean / min(grid) - 1:+.2%} "
            f"({len(grid)} settings)"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--cores-a-run", type=int)
    parser.add_argument("--home", type=Path, default=ROOT / "bench-results" / "regret-home")
    given = parser.parse_args()
    run(given.home, given.hours, given.dataset, given.cores_a_run)
    report(given.hours, given.dataset)


if __name__ == "__main__":
    main()
