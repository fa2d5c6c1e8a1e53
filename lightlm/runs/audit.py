"""The audit of a finished run's model: what it repeats of its text, and what it knows of others."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from lightlm.data.copies.verbatim import WINDOW_BYTES
from lightlm.data.subset import TextSubset
from lightlm.errors import LightLMError
from lightlm.evaluation.general import GENERAL_TEXT
from lightlm.quantities import count
from lightlm.runs.finished import FinishedRun
from lightlm.runs.folder import name_run_folder
from lightlm.runs.session import start_worker
from lightlm.runs.summary import RunSummary
from lightlm.store.commit import remove_folder
from lightlm.tracking.record import Metrics
from lightlm.tracking.reports import add_records, tag_version
from lightlm.tracking.tags import AUDIT_TAG
from lightlm.training.messages import Memorization
from lightlm.training.supervisor import Worker

MEMORIZATION_SECONDS = 10.0
"""Seconds after which no further beginnings of documents are continued."""

SHOWN_CHARACTERS = 400
"""Characters of a copy that are shown."""

NO_TEXT = "its training text is not in the store any more; a new run on it puts it there"


class Audit(BaseModel, frozen=True):
    """What a model repeats, and what it knows of the small general text, with its base's score;
    `problem` says why something of that is missing.
    """

    memorization: Memorization | None = None
    general_bits_per_byte: float | None = None
    base_general_bits_per_byte: float | None = None
    problem: str = ""

    @property
    def values(self) -> dict[str, float]:
        """Its figures by their names in MLflow."""
        values = {
            "audit/general_bits_per_byte": self.general_bits_per_byte,
            "audit/base_general_bits_per_byte": self.base_general_bits_per_byte,
        }
        if self.memorization is not None:
            counted = self.memorization.together or self.memorization.network
            names = ("audit/repeated_of_training", "audit/repeated_of_held_out")
            tried = self.memorization.num_prefixes
            values |= {
                name: repeated / number
                for name, repeated, number in zip(names, counted, tried, strict=True)
                if number
            }
            if self.memorization.sample_characters:
                values["audit/longest_copy"] = len(self.memorization.longest_copy)
        return {name: value for name, value in values.items() if value is not None}


def audit_model(home: Path, run: FinishedRun, subsets: Sequence[TextSubset]) -> Audit:
    """Return what the run's model repeats of the texts that are there, and has forgotten."""
    folder = name_run_folder(home)
    worker = start_worker(folder, home)
    found: dict[str, object] = {} if subsets else {"problem": NO_TEXT}
    try:
        for name, value in measure(worker, run, subsets):
            found[name] = value
    except LightLMError as error:
        found["problem"] = " ".join(str(error).splitlines())
    finally:
        worker.stop()
        remove_folder(folder)
    return Audit.model_validate(found)


def measure(
    worker: Worker, run: FinishedRun, subsets: Sequence[TextSubset]
) -> Iterator[tuple[str, object]]:
    """Yield the parts of an audit by their names."""
    folder = run.summary.folder
    yield "general_bits_per_byte", worker.call("score_general", folder=folder)["bits_per_byte"]
    if subsets:
        yield (
            "memorization",
            worker.call(
                "measure_memorization",
                folder=folder,
                subset_folders=[str(subset.folder) for subset in subsets],
                samples=[sample for _, sample in run.samples],
                max_seconds=MEMORIZATION_SECONDS,
            ),
        )
    if run.base is not None and run.base.is_dir():
        base = worker.call("score_general", folder=str(run.base))
        yield "base_general_bits_per_byte", base["bits_per_byte"]


def record_audit(home: Path, summary: RunSummary, audit: Audit) -> None:
    """Add an audit's figures to the run in MLflow, and what they say to its version, for its card.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    now = int(1000 * time.time())
    add_records(home, summary.run_id, Metrics(time_ms=now, step=0, values=audit.values))
    if summary.model_version and audit.memorization is not None:  # else an earlier one stays
        lines = [*describe_audit(audit, summary.started_from)]
        lines.append(f"Measured by `lightlm report` on {datetime.now(UTC):%Y-%m-%d}.")
        tag_version(home, summary.model_name, summary.model_version, {AUDIT_TAG: "\n".join(lines)})


def describe_audit(audit: Audit, base: str, *, is_private: bool = False) -> Iterator[str]:
    """Yield what was found, a paragraph each; only with `is_private` what a copy says."""
    if audit.memorization is not None:
        yield from describe_memorization(audit.memorization, is_private=is_private)
    if audit.general_bits_per_byte is not None:
        yield describe_general(audit.general_bits_per_byte, audit.base_general_bits_per_byte, base)
    if audit.problem:
        yield f"Not all could be measured: {audit.problem}."


def describe_memorization(memorized: Memorization, *, is_private: bool) -> Iterator[str]:
    """Yield what the model repeats, a paragraph each."""
    learned, held_out = memorized.num_prefixes
    of_learned, of_held_out = (
        format_shares(memorized, split, tried) for split, tried in enumerate((learned, held_out))
    )
    what = "No training document has the 64 tokens that a trial needs."
    if learned:
        what = (
            f"Of {count(learned, 'beginning')} of training documents, 32 tokens each, greedy text "
            f"repeats the next 32 tokens verbatim for {of_learned}."
        )
    if held_out:
        what += (
            f" For {count(held_out, 'beginning')} of held-out documents, which it has not read, "
            f"it does so for {of_held_out}."
        )
    yield what

    if memorized.sample_characters:
        length = len(memorized.longest_copy)
        shown = f': "{memorized.longest_copy[:SHOWN_CHARACTERS]}"' if is_private else ""
        yield (
            f"Of the {memorized.sample_characters:,} characters that it wrote as samples, the "
            f"longest piece that stands in the training text has {length:,}{shown}."
            if length
            else f"No {WINDOW_BYTES} bytes in a row of its samples stand in the training text."
        )


def format_shares(memorized: Memorization, split: int, tried: int) -> str:
    """Return "1.5%", or "1.5% by the network alone, and for 2.0% with its count tables"."""
    share = f"{memorized.network[split] / max(1, tried):.1%}"
    if memorized.together is None:
        return share
    together = memorized.together[split] / max(1, tried)
    return f"{share} by the network alone, and for {together:.1%} with its count tables"


def describe_general(bits: float, before: float | None, base: str) -> str:
    """Return what the model knows of the general text, in a sentence."""
    what = (
        f"On a small general text ({sum(len(one.encode()) for one in GENERAL_TEXT):,} bytes of "
        f"English and code, which is part of LightLM) the network has {bits:.3f} bits per byte"
    )
    if before is None:
        return f"{what}."
    return f"{what}; {base} had {before:.3f} before training: {bits / before - 1:+.1%}."
