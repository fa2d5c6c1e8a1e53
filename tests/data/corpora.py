"""Data sets of tables for corpora, and corpora that this process makes of them, without datatrove."""

import json
import random
from pathlib import Path

from lightlm.data.building import tasks
from lightlm.data.building.job import Job, plan_job
from lightlm.params import load_params

WORDS = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("a", "en", "ist", "o", "um")]


def make_text(seed: int, number: int = 60) -> str:
    """Return a document of random words, which is a near copy of none of another seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=number))


def write_table(path: Path, texts: list[str]) -> None:
    """Write documents as the rows of a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def write_tables(folder: Path) -> Path:
    """Write a data set: four tables of different documents, the first of which stands again in the
    last table, and a split that is held out by name.
    """
    for table in range(4):
        texts = [make_text(100 * table + row) for row in range(40)]
        write_table(folder / f"part-{table}.jsonl", texts + [make_text(0)] * (table == 3))
    write_table(folder / "validation.jsonl", [make_text(1000 + row) for row in range(20)])
    return folder


def make_job(source: Path | str, out: Path | str, **overrides: object) -> Job:
    """Return the job of a corpus with a small vocabulary."""
    params = load_params(dataset=str(source), overrides={"tokenizer.vocab_size": 380} | overrides)
    return plan_job(params, out.as_uri() if isinstance(out, Path) else out)


def build_plainly(job: Job) -> str:
    """Do all tasks but datatrove's in this process; return the corpus' URL."""
    for rank in range(len(job.tasks)):
        tasks.read_task(job, rank)
    tasks.hold_out(job)
    for rank in range(len(job.tasks)):
        tasks.write_task(job, rank)
    tasks.finish(job)
    return job.out
