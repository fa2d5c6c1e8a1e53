"""The audit of a finished run's model: what it repeats of its text, and what it knows of others."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lightlm.counting import count
from lightlm.data.copies.verbatim import WINDOW_BYTES
from lightlm.data.subset import TextSubset
from lightlm.errors import StoreError
from lightlm.evaluation.general import GENERAL_TEXT
from lightlm.runs.finished import FinishedRun
from lightlm.runs.folder import name_run_folder
from lightlm.runs.session import start_worker
from lightlm.store.commit import remove_folder
from lightlm.training.messages import Memorization

MEMORIZATION_SECONDS = 10.0
"""Seconds after which no further beginnings of documents are continued."""

SHOWN_CHARACTERS = 400
"""Characters of a copy that are shown."""


class Audit(NamedTuple):
    """What a model repeats, and what it knows of the small general text, with its base's score."""

    memorization: Memorization
    general: float
    base_general: float | None = None

    def to_json(self) -> str:
        """Return it as the JSON that MLflow gets."""
        values = {
            "memorization": self.memorization.model_dump(),
            "general_bits_per_byte": self.general,
            "base_general_bits_per_byte": self.base_general,
        }
        return json.dumps(values, indent=2, ensure_ascii=False)


def audit_model(home: Path, run: FinishedRun, subset: TextSubset) -> Audit | None:
    """Return what the run's model repeats and has forgotten; None where its folder is gone."""
    folder = name_run_folder(home)
    worker = start_worker(folder, home)
    try:
        memorization = worker.call(
            "measure_memorization",
            folder=run.summary.folder,
            subset_folder=str(subset.folder),
            samples=[sample for _, sample in run.samples],
            max_seconds=MEMORIZATION_SECONDS,
        )
        general = worker.call("score_general", folder=run.summary.folder)["bits_per_byte"]
        base = None
        if run.base is not None and run.base.is_dir():
            base = worker.call("score_general", folder=str(run.base))["bits_per_byte"]
        return Audit(Memorization.model_validate(memorization), general, base)
    except StoreError:
        return None
    finally:
        worker.stop()
        remove_folder(folder)


def describe_memorization(memorized: Memorization) -> Iterator[str]:
    """Yield what the model repeats, a paragraph each."""
    learned, held_out = memorized.num_prefixes
    of_learned, of_held_out = (
        format_shares(memorized, split, tried) for split, tried in enumerate((learned, held_out))
    )
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
        yield (
            f"Of the {memorized.sample_characters:,} characters that it wrote as samples, the "
            f"longest piece that stands in the training text has {length:,}: "
            f'"{memorized.longest_copy[:SHOWN_CHARACTERS]}".'
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


def describe_general(audit: Audit, base: str) -> str:
    """Return what the model knows of the general text, in a sentence."""
    what = (
        f"On a small general text ({sum(len(one.encode()) for one in GENERAL_TEXT):,} bytes of "
        f"English and code, which is part of LightLM) the network has {audit.general:.3f} bits per "
        "byte"
    )
    if audit.base_general is None:
        return f"{what}."
    change = audit.general / audit.base_general - 1
    return f"{what}; {base} had {audit.base_general:.3f} before training: {change:+.1%}."
