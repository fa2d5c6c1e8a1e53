"""What a finished train-flow returns, and the report that a person sees of it."""

import sys
from typing import Any

from pydantic import BaseModel, ConfigDict

from lightlm.console.next_commands import list_next_commands

UNANNEALED = 0.02
"""Fraction of the peak learning rate above which training did not end annealed."""

LAST_STEPS = 3
"""Steps short of the end at which a run of few steps still counts as annealed: one step is a large
part of it.
"""


class RunSummary(BaseModel):
    """What a finished train-flow returns. Seconds by stage in `ledger`; `mfu` against the measured
    matrix rate.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    run_id: str
    model_name: str
    model_version: str
    aliases: list[str]
    promotion: str
    bits_per_byte: float
    score: dict[str, Any]
    budget_seconds: float
    elapsed_seconds: float
    ledger: dict[str, float]
    plan: dict[str, Any]
    trained_until_seconds: float
    """Elapsed when the last step had ended."""
    tokens: int
    tokens_per_second: float
    mfu: float
    final_learning_rate_factor: float
    dataset: dict[str, Any]
    shape: str
    folder: str
    started_from: str = "scratch"
    comparison: dict[str, Any] | None = None

    def closed(self, elapsed_seconds: float) -> "RunSummary":
        """Return it with the time that passed since it was made; `elapsed_seconds` since the
        process began.
        """
        ending = max(0.0, elapsed_seconds - self.elapsed_seconds)
        return self.model_copy(
            update={
                "elapsed_seconds": round(self.elapsed_seconds + ending, 3),
                "ledger": self.ledger | {"end": round(ending, 3)},
            }
        )


class RetrainSummary(BaseModel):
    """What a finished retrain-flow returns: what was new, where training started, how it compared;
    `run` if it ran.
    """

    model_config = ConfigDict(frozen=True)

    is_retrained: bool
    reason: str
    news: dict[str, Any]
    start: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    run: RunSummary | None = None


def show_summary(summary: RunSummary) -> None:
    """Print the report of a finished run, a result, on standard output."""
    from lightlm.console.report import RunReport, render_report
    from lightlm.console.terminal import open_console

    console = open_console(sys.stdout)
    console.print(render_report(RunReport(**report_values(summary.model_dump())), console))


def report_values(summary: dict[str, Any]) -> dict[str, Any]:
    """Return what the report shows of a run's summary."""
    chosen = summary["plan"]
    score = summary["score"]
    start = summary["started_from"]
    name = summary["model_name"]
    version = summary["model_version"]
    notices = [notice for notice in (summary["dataset"]["notice"],) if notice]
    factor = summary["final_learning_rate_factor"]
    num_steps = summary["tokens"] / chosen["trainer"]["batch_tokens"]

    if factor > max(UNANNEALED, LAST_STEPS / max(1.0, num_steps)):
        notices.append(
            f"training ended with the learning rate at {factor:.0%} of its peak, before it was "
            "lowered to the end: "
            "the machine stood still, or was busy, for too long; the same command again gives a "
            "better model"
        )

    if not score["is_whole"]:
        notices.append(
            f"scored on the first {score['num_bytes']:,} bytes of the held-out text: time was short"
        )

    return {
        "version_name": f"{name} version {version}" if version else f"{name} (not registered yet)",
        "bits_per_byte": score["bits_per_byte"],
        "scored_bytes": score["num_bytes"],
        "predicted_low": chosen["predicted_low"],
        "predicted_high": chosen["predicted_high"],
        "num_parameters": chosen["num_parameters"],
        "total_tokens": summary["tokens"],
        "training_seconds": summary["ledger"].get("training", 0.0),
        "elapsed_seconds": summary["elapsed_seconds"],
        "budget_seconds": summary["budget_seconds"],
        "shape": summary["shape"]
        + ("" if start == "scratch" else f", from the weights of {start}"),
        "promotion": summary["promotion"],
        "ledger": summary["ledger"],
        "notices": notices,
        "next_commands": list_next_commands(name, version, summary.get("aliases", ())),
    }
