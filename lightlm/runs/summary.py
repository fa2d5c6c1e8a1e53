"""The summary of a finished run, as the flows return it and as the terminal prints it."""

import sys
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from lightlm.budget.continuation import Start
from lightlm.budget.plan import Plan
from lightlm.console.next_commands import list_next_commands
from lightlm.evaluation.comparison import Comparison
from lightlm.evaluation.score import Score
from lightlm.json_object import JsonObject
from lightlm.runs.dataset_change import DatasetChange

if TYPE_CHECKING:
    from lightlm.console.report import RunReport

UNANNEALED = 0.02
"""Fraction of the peak learning rate above which training did not end annealed."""

LAST_STEPS = 3
"""Steps before the end at which a short run still counts as annealed."""


class RunSummary(BaseModel):
    """A finished run. Seconds by stage in `ledger`; `mfu` against the measured matrix rate."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    run_id: str
    model_name: str
    model_version: str
    aliases: list[str]
    promotion: str
    bits_per_byte: float
    score: Score
    budget_seconds: float
    elapsed_seconds: float
    ledger: dict[str, float]
    plan: Plan
    trained_until_seconds: float
    """Elapsed when the last step had ended."""
    tokens: int
    tokens_per_second: float
    mfu: float
    final_learning_rate_factor: float
    dataset: JsonObject
    shape: str
    folder: str
    started_from: str = "scratch"
    comparison: Comparison | None = None

    def closed(self, elapsed_seconds: float) -> "RunSummary":
        """Return it at a later time: `elapsed_seconds` since the process began."""
        ending = max(0.0, elapsed_seconds - self.elapsed_seconds)
        return self.model_copy(
            update={
                "elapsed_seconds": round(self.elapsed_seconds + ending, 3),
                "ledger": self.ledger | {"end": round(ending, 3)},
            }
        )


class RetrainSummary(BaseModel):
    """A finished retraining: the data set's change, the start, the comparison, the run if any."""

    model_config = ConfigDict(frozen=True)

    is_retrained: bool
    reason: str
    news: DatasetChange
    start: Start | None = None
    comparison: Comparison | None = None
    run: RunSummary | None = None


def show_summary(summary: RunSummary) -> None:
    """Print the report of a finished run on standard output."""
    from lightlm.console.report import render_report
    from lightlm.console.terminal import open_console

    console = open_console(sys.stdout)
    console.print(render_report(describe_summary(summary), console))


def describe_summary(summary: RunSummary) -> "RunReport":
    """Return the report of a run's summary, with notices of what went less well."""
    from lightlm.console.report import RunReport

    plan = summary.plan
    score = summary.score
    name = summary.model_name
    version = summary.model_version
    notices = [notice for notice in (summary.dataset["notice"],) if notice]
    factor = summary.final_learning_rate_factor
    num_steps = summary.tokens / plan.trainer.batch_tokens

    if factor > max(UNANNEALED, LAST_STEPS / max(1.0, num_steps)):
        notices.append(
            f"training ended with the learning rate at {factor:.0%} of its peak, before it was "
            "lowered to the end: the machine stood still, or was busy, for too long; the same "
            "command again gives a better model"
        )

    if not score.is_whole:
        notices.append(
            f"scored on the first {score.num_bytes:,} bytes of the held-out text: time was short"
        )

    start = summary.started_from
    origin = "" if start == "scratch" else f", from the weights of {start}"
    return RunReport(
        version_name=f"{name} version {version}" if version else f"{name} (not registered yet)",
        bits_per_byte=score.bits_per_byte,
        scored_bytes=score.num_bytes,
        predicted_low=plan.predicted_low,
        predicted_high=plan.predicted_high,
        num_parameters=plan.num_parameters,
        total_tokens=summary.tokens,
        training_seconds=summary.ledger.get("training", 0.0),
        elapsed_seconds=summary.elapsed_seconds,
        budget_seconds=summary.budget_seconds,
        shape=summary.shape + origin,
        promotion=summary.promotion,
        ledger=summary.ledger,
        notices=notices,
        next_commands=list_next_commands(name, version, summary.aliases),
    )
