"""What a finished train-flow returns, and how long its end took."""

from typing import Any

from lightlm.budget.plan import Plan
from lightlm.budget.probe import MachineRate
from lightlm.data.subset import TextSubset
from lightlm.runs.history import END_SECONDS, remember_the_end
from lightlm.runs.pages import show_outcome
from lightlm.runs.recording import describe_dataset, keep_summary, mfu
from lightlm.runs.session import LAUNCH, Session
from lightlm.runs.summary import RunSummary
from lightlm.tracking.registry import ModelVersion
from lightlm.training.messages import TrainResult


def summarize(
    session: Session,
    plan: Plan,
    machine: MachineRate,
    trained: TrainResult,
    score: dict[str, Any],
    subset: TextSubset,
    version: ModelVersion,
) -> RunSummary:
    """Return the flow's result; remember how long the end of this run took."""
    ledger = session.ledger
    entries = {name: round(seconds, 3) for name, seconds in ledger.close().items()}
    show_outcome(session, plan, score, version, entries)
    summary = RunSummary(
        run_id=version.run_id,
        model_name=version.name,
        model_version=version.version,
        aliases=list(version.aliases),
        promotion=version.tags.get("lightlm.promotion", ""),
        bits_per_byte=score["bits_per_byte"],
        score=score,
        budget_seconds=ledger.budget_seconds,
        elapsed_seconds=round(ledger.elapsed_seconds, 3),
        ledger=entries,
        plan=plan.model_dump(mode="json"),
        trained_until_seconds=ledger.budget_seconds - (ledger.deadline - trained.ended_at),
        tokens=trained.total_tokens,
        tokens_per_second=trained.tokens_per_second,
        mfu=mfu(plan, trained.tokens_per_second),
        final_learning_rate_factor=trained.final_learning_rate_factor,
        dataset=describe_dataset(subset),
        shape=plan.summary(),
        folder=str(trained.folder),
        started_from=session.facts["start"].name if "start" in session.facts else "scratch",
        comparison=None
        if session.facts["comparison"] is None
        else session.facts["comparison"].model_dump(),
    )

    keep_summary(session, summary)
    # the command line waits for the very end
    if LAUNCH.get() is None and not session.run.is_continued:
        remember_the_end(summary, session.home, ledger.elapsed_seconds + END_SECONDS)

    return summary
