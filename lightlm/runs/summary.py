"""The summary of a finished run, as the flows return it and as the terminal prints it."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from lightlm.budget.continuation import Start
from lightlm.budget.mixing import find_hours
from lightlm.budget.plan import Plan
from lightlm.console.next_commands import list_next_commands
from lightlm.energy import Energy
from lightlm.evaluation.comparison import Comparison
from lightlm.evaluation.score import Score, TextScore
from lightlm.json_object import JsonObject
from lightlm.runs.dataset_change import DatasetChange

if TYPE_CHECKING:
    from lightlm.console.report import RunReport

UNANNEALED = 0.02
"""Fraction of the peak learning rate above which training did not end annealed."""

LAST_STEPS = 3
"""Steps before the end at which a short run still counts as annealed."""


class RunSummary(BaseModel, frozen=True):
    """A finished run. Seconds by stage in `ledger`; `mfu` against the measured matrix rate."""

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
    start_bits_per_byte: float | None = None
    """Score of the base on a sample of the held-out text, before training."""
    final_bits_per_byte: float | None = None
    """Score of the result on the same sample."""
    kept_start: bool = False
    """Whether training did not improve on the base, whose weights are the result."""
    comparison: Comparison | None = None
    others: tuple[TextScore, ...] = ()
    """Scores on the held-out parts of the further texts."""
    joules: dict[str, float] = {}
    """Energy by source, of the sources that this machine lets us read."""
    grams_co2_per_kwh: float | None = None
    """Intensity of the grid, where a person named it."""
    together_bits_per_byte: float | None = None
    """Score over the held-out text of all of them together."""

    @property
    def energy(self) -> Energy:
        """What the run took."""
        return Energy(self.joules, self.grams_co2_per_kwh)

    def closed(self, elapsed_seconds: float) -> "RunSummary":
        """Return it at a later time: `elapsed_seconds` since the process began."""
        ending = max(0.0, elapsed_seconds - self.elapsed_seconds)
        return self.model_copy(
            update={
                "elapsed_seconds": round(self.elapsed_seconds + ending, 3),
                "ledger": self.ledger | {"end": round(ending, 3)},
            }
        )


class RetrainSummary(BaseModel, frozen=True):
    """A finished retraining: the data set's change, the start, the comparison, the run if any."""

    is_retrained: bool
    reason: str
    news: DatasetChange
    start: Start | None = None
    comparison: Comparison | None = None
    run: RunSummary | None = None


def find_counting_bits(score: Score, plan: Plan) -> float | None:
    """Return the bits per byte of counting alone: on the held-out text, else on the text that was
    held back from training; None where nothing was counted.
    """
    if score.counting_bits_per_byte is not None:
        return score.counting_bits_per_byte
    return None if plan.counts is None else plan.counts.counting_bits_per_byte


def describe_others(
    plan: Plan, others: Sequence[TextScore], together: float | None, num_tokens: int
) -> list[str]:
    """Return a clause for each further text of a run that read `num_tokens`, with its share and its
    score, and one for all texts together; none where there was one text.
    """
    scores = {one.name: one.score for one in others}
    clauses = []
    for text in plan.texts[1:]:
        score = scores.get(text.name)
        epochs = text.epochs * num_tokens / max(1, plan.expected_tokens)
        clauses.append(
            f"{text.name}, {text.share:.1%} of the tokens read ({epochs:.1f} epochs)"
            + ("" if score is None else f", {score.bits_per_byte:.4f} bits per byte on its own")
        )
    if together is not None:
        clauses.append(f"all held-out text together {together:.4f} bits per byte")
    return clauses


def describe_parts(score: Score) -> str:
    """Return ": network and counts together; the network alone 1.770, counting alone 1.792"."""
    if score.network_bits_per_byte is None or score.counting_bits_per_byte is None:
        return ""
    return (
        f": network and counts together; the network alone {score.network_bits_per_byte:.3f}, "
        f"counting alone {score.counting_bits_per_byte:.3f}"
    )


def compare_with_counting(summary: RunSummary) -> str | None:
    """Return that the network alone is no better than counting, and from which hours on it would
    be; None where it is better, or nothing was counted.
    """
    reached = summary.score.network_alone
    counting = find_counting_bits(summary.score, summary.plan)
    if counting is None or reached < counting:
        return None
    hours = find_hours(
        summary.plan,
        summary.budget_seconds / 3600,
        summary.dataset["num_bytes"],
        reached,
        counting,
    )
    when = (
        "by the plan's law, no budget on this text changes that"
        if hours is None
        else f"from about --hours {hours:.2g} on it would be"
    )
    return (
        f"the network alone ({reached:.3f}) is not better than counting n-grams "
        f"({counting:.3f}): {when}"
    )


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
    if summary.kept_start:
        notices.append(
            f"training did not improve on {summary.started_from}: its weights are the result"
        )
    elif summary.start_bits_per_byte is not None and summary.final_bits_per_byte is not None:
        notices.append(
            f"{summary.started_from} had {summary.start_bits_per_byte:.4f} bits per byte on a "
            f"sample of the held-out text before training, now {summary.final_bits_per_byte:.4f}"
        )
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

    if (weaker := compare_with_counting(summary)) is not None:
        notices.append(weaker)

    start = summary.started_from
    _, low, high = plan.predictions
    origin = "" if start == "scratch" else f", from the weights of {start}"
    return RunReport(
        version_name=f"{name} version {version}" if version else f"{name} (not registered yet)",
        bits_per_byte=score.bits_per_byte,
        scored_bytes=score.num_bytes,
        parts=describe_parts(score),
        texts=describe_others(plan, summary.others, summary.together_bits_per_byte, summary.tokens),
        predicted_low=low if score.network_bits_per_byte is not None else plan.predicted_low,
        predicted_high=high if score.network_bits_per_byte is not None else plan.predicted_high,
        num_parameters=plan.num_parameters,
        total_tokens=summary.tokens,
        training_seconds=summary.ledger.get("training", 0.0),
        elapsed_seconds=summary.elapsed_seconds,
        budget_seconds=summary.budget_seconds,
        shape=summary.shape + origin,
        promotion=summary.promotion,
        energy=summary.energy.format(),
        ledger=summary.ledger,
        notices=notices,
        next_commands=list_next_commands(name, version, summary.aliases),
    )
