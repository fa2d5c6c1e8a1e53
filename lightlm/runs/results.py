"""The result of a run: shown, kept in its folder, and used by later plans."""

from lightlm.runs.history import END_SECONDS, remember_the_end
from lightlm.runs.pages import show_outcome
from lightlm.runs.recording import keep_summary, mfu
from lightlm.runs.session import Session
from lightlm.runs.summary import RunSummary
from lightlm.runs.texts import describe_dataset
from lightlm.runs.values import Outcome, Registered
from lightlm.tracking.registry import PROMOTION_TAG


def summarize(session: Session, outcome: Outcome, registered: Registered) -> RunSummary:
    """Return the flow's result; keep how long the end of this run took."""
    ledger = session.ledger
    plan = outcome.plan
    result = outcome.trained.result
    score = outcome.evaluated.score
    version = registered.version
    entries = {name: round(seconds, 3) for name, seconds in ledger.close().items()}
    show_outcome(session, plan, score, registered, entries)

    summary = RunSummary(
        run_id=version.run_id,
        model_name=version.name,
        model_version=version.version,
        aliases=list(version.aliases),
        promotion=version.tags.get(PROMOTION_TAG, ""),
        bits_per_byte=score.bits_per_byte,
        score=score,
        budget_seconds=ledger.budget_seconds,
        elapsed_seconds=round(ledger.elapsed_seconds, 3),
        ledger=entries,
        plan=plan,
        trained_until_seconds=ledger.budget_seconds - (ledger.deadline - result.ended_at),
        tokens=result.total_tokens,
        tokens_per_second=result.tokens_per_second,
        mfu=mfu(plan, result.tokens_per_second),
        final_learning_rate_factor=result.final_learning_rate_factor,
        dataset=describe_dataset(outcome.material.subset),
        shape=plan.summary(),
        folder=str(result.folder),
        started_from=outcome.start.name,
        start_bits_per_byte=result.start_bits_per_byte,
        final_bits_per_byte=result.final_bits_per_byte,
        kept_start=result.kept_start,
        comparison=registered.comparison,
        joules={name: round(one, 3) for name, one in ledger.joules.items()},
        grams_co2_per_kwh=session.params.tracking.grams_co2_per_kwh,
        others=outcome.evaluated.others,
        together_bits_per_byte=outcome.evaluated.together,
    )

    keep_summary(session, summary)
    # The command line waits for the very end.
    if session.launch is None and not session.run.is_continued:
        elapsed = ledger.elapsed_seconds + END_SECONDS
        remember_the_end(summary, session.home, elapsed, session.run.slowdown)

    return summary
