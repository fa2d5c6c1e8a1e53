"""Between runs: the figures that a run takes from earlier ones and leaves to later ones."""

import os
import time
from pathlib import Path

from pydantic import ValidationError

from lightlm.budget.history import FinishedRun, History
from lightlm.budget.lead import LeadTimes
from lightlm.budget.neighbors import Neighbors
from lightlm.budget.reserve import ClosingTimes, EndConditions, FixedTimes
from lightlm.model.accounting import count_matrix_parameters
from lightlm.runs.finished import add_late_version
from lightlm.runs.folder import Run, count_live_runs
from lightlm.runs.session import Session
from lightlm.runs.summary import RunSummary
from lightlm.runs.values import Outcome
from lightlm.system import SystemReport
from lightlm.tracking.earlier_runs import FINISHED_RUN_TAG, HARDWARE_TAG


def notice_neighbors(session: Session, system: SystemReport) -> None:
    """Find out who else uses this machine, for the plan and for the waits at the end; log it."""
    num_runs = count_live_runs(session.home, session.folder)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    session.neighbors = Neighbors(num_runs, session.run.cpu.busy_cores(), system.num_cores, load)
    session.allowance.conditions = EndConditions(session.neighbors.slowdown)
    session.run.slowdown = session.neighbors.slowdown
    if said := session.neighbors.describe():
        session.log(said)


END_SECONDS = 0.7
"""Seconds from a flow's return to the end of its process: Prefect's last states, exit handlers."""


def remember_the_end(
    summary: RunSummary, home: Path, elapsed_seconds: float, slowdown: float
) -> None:
    """Remember how long the end of a run took, without the score; later plans keep as much.

    What a crowd made `slowdown` times as long counts as what it takes alone: a plan in a crowd
    multiplies it again, and kept 28 of 36 s.
    """
    entries = {stage: seconds / slowdown for stage, seconds in summary.ledger.items()}
    closing = ClosingTimes(home)
    if closing.read():  # a home's first run also makes its databases
        FixedTimes(home).record_ledger(entries)
        LeadTimes(home).record_ledger(entries)
    judging = entries.get("final evaluation", 0.0) + entries.get("gate", 0.0)
    closing.record((elapsed_seconds - summary.trained_until_seconds) / slowdown - judging)


def close_summary(summary: RunSummary, run: Run, home: Path) -> RunSummary:
    """Return the summary with the time that its command took to end, which is remembered, and
    with the version that MLflow made while it ended.
    """
    elapsed = run.ledger.elapsed_seconds
    closed = add_late_version(summary, run.folder).closed(elapsed)
    if not run.is_continued:  # its end lies where the death was, too
        remember_the_end(closed, home, elapsed, run.slowdown)
    return closed


def leave_to_later_runs(session: Session, outcome: Outcome) -> None:
    """Keep prediction and result for later plans: under LIGHTLM_HOME, and in MLflow for others."""
    plan = outcome.plan
    result = outcome.trained.result
    score = outcome.evaluated.score
    subset = outcome.material.subset
    seconds = max(result.training_seconds, 1e-9)
    try:
        run = FinishedRun(
            run=session.folder.name,
            ended_at=time.time(),
            hardware_id=outcome.system.hardware_id,
            hours=session.params.budget.hours,
            dataset=subset.name,
            text_sha256=score.text_sha256,
            shape=plan.summary(),
            matrix_parameters=count_matrix_parameters(plan.model),
            seen_bytes=result.total_tokens * plan.bytes_per_token,
            unique_bytes=subset.num_bytes,
            difficulty=plan.difficulty,
            training_seconds=seconds,
            planned_tokens_per_second=plan.tokens_per_second / plan.speed_correction,
            tokens_per_second=result.total_tokens / seconds,
            predicted_bits_per_byte=plan.predicted_bits_per_byte,
            predicted_low=plan.predicted_low,
            predicted_high=plan.predicted_high,
            bits_per_byte=score.network_alone,
            is_whole=score.is_whole,
        )
    # For example a text that was learned to the last bit: no plan could be corrected by it.
    except ValidationError:
        return

    History(session.home).record(run)
    session.recorder.set_tags(
        {HARDWARE_TAG: run.hardware_id, FINISHED_RUN_TAG: run.model_dump_json()}
    )
    session.recorder.log_metrics(
        {
            "plan/predicted_low": run.predicted_low,
            "plan/predicted_high": run.predicted_high,
            "plan/error": run.bits_per_byte / run.predicted_bits_per_byte - 1,
            "plan/hardness": run.difficulty,
            "plan/tokens_per_second": plan.tokens_per_second,
        },
        result.step,
    )
