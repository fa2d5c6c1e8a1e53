"""A run in pages, for Prefect and MLflow alike: checks, plan, samples, decision, score, time."""

import json
from collections.abc import Sequence
from dataclasses import astuple, fields

from lightlm.budget.plan import Plan
from lightlm.evaluation.comparison import FEWEST_DOCUMENTS, Comparison, format_too_few
from lightlm.evaluation.score import Score
from lightlm.params import Params
from lightlm.rendering.page import Block, Page, Picture, Quote, Table
from lightlm.rendering.svg import render_comparison
from lightlm.runs.session import Session
from lightlm.runs.summary import find_counting_bits
from lightlm.runs.values import Registered, Sample, StartingPoint
from lightlm.system import SystemReport
from lightlm.tracking.registry import PROMOTION_TAG, is_local, tracking_uri

MLFLOW_PAGES = "http://127.0.0.1:5000"
"""Where `lightlm ui` shows runs that no server holds."""

SHOWN_SAMPLES = 12
"""Samples on one page at most; the first and the last are among them."""


def show_checks(session: Session, report: SystemReport) -> None:
    """Show the system check."""
    rows = [
        {"check": one.name, "status": one.status, "finding": one.message, "fix": one.fix}
        for one in report.checks
    ]
    session.page.table("system-check", rows, "What this machine has")


def show_plan(session: Session, plan: Plan) -> None:
    """Show the plan, its runners-up and its reasons; in MLflow as plan.html."""
    page = describe_plan(plan)
    session.page.markdown("budget-plan", page.to_markdown(), "What is trained in the time, and why")
    session.recorder.log_text(page.to_html(), "plan.html")


def describe_plan(plan: Plan) -> Page:
    """Return the plan as a page."""
    chosen = (
        f"{plan.predicted_bits_per_byte:.3f} ({plan.predicted_low:.3f} to "
        f"{plan.predicted_high:.3f})"
    )
    rows = [(f"chosen: {plan.summary()}", chosen)]
    if plan.is_mixed:
        rows.append(("the same network with count tables", plan.format_prediction()))
    rows += [(one.summary, f"{one.predicted_bits_per_byte:.3f}") for one in plan.alternatives]
    facts = [
        ("parameters", f"{plan.num_parameters:,}"),
        ("tokens expected", f"{plan.expected_tokens:,} ({plan.expected_epochs:.1f} epochs)"),
        (
            "speed",
            f"{plan.tokens_per_second:,.0f} tokens/s on {plan.trainer.device}, "
            f"{plan.trainer.dtype}",
        ),
        (
            "batch",
            f"{plan.trainer.batch_tokens:,} tokens, {plan.trainer.micro_batch_size} sequences at "
            "once",
        ),
        (
            "training",
            f"{plan.training_seconds:.0f} s, {plan.reserve_seconds:.1f} s kept for what follows",
        ),
        ("memory", f"{plan.memory_bytes / 1e6:,.0f} MB"),
    ]

    facts += [
        (f"from {one.name}", f"{one.share:.1%}, {one.tokens:,} tokens ({one.epochs:.1f} epochs)")
        for one in plan.texts
    ]

    return Page(
        "The plan",
        [
            Table(("shape", "bits per byte predicted"), rows),
            Table(("", ""), facts),
            "Why:",
            *plan.reasons,
        ],
    )


def show_samples(session: Session, samples: Sequence[Sample]) -> None:
    """Show the texts written during training; in MLflow as samples.html and as a table."""
    if not samples:
        return

    every = -(-len(samples) // SHOWN_SAMPLES)
    blocks: list[Block] = []
    for one in [*samples[:-1:every], samples[-1]]:
        score = (
            "" if one.bits_per_byte is None else f", {one.bits_per_byte:.3f} bits per byte held out"
        )
        blocks += [f"{one.progress:.0%} of the time, step {one.step:,}{score}", Quote(one.text)]

    page = Page("What the model wrote along the way", blocks)
    session.page.markdown("samples", page.to_markdown(), "What the model wrote along the way")
    recorder = session.recorder
    recorder.log_text(page.to_html(), "samples.html")
    columns = [field.name for field in fields(Sample)]
    rows = [astuple(one) for one in samples]
    recorder.log_text(json.dumps({"columns": columns, "data": rows}), "samples.json")
    recorder.set_tags(
        {"mlflow.loggedArtifacts": json.dumps([{"path": "samples.json", "type": "table"}])}
    )


def show_decision(
    session: Session, start: StartingPoint, comparison: Comparison | None, not_compared: str
) -> Page:
    """Record how the models compare, before any alias moves; in MLflow as decision.html."""
    page = describe_decision(session.params, start, comparison, not_compared)
    session.recorder.log_text(page.to_html(), "decision.html")

    if comparison is not None:
        session.recorder.log_text(render_comparison(comparison), "decision.svg")
        session.recorder.log_metrics(
            {
                "versus_champion/champion_bits_per_byte": comparison.champion_bits_per_byte,
                "versus_champion/difference": comparison.difference,
                "versus_champion/difference_low": comparison.low,
                "versus_champion/difference_high": comparison.high,
            },
            0,
        )

    return page


def describe_decision(
    params: Params, start: StartingPoint, comparison: Comparison | None, not_compared: str
) -> Page:
    """Return the page of the decision: where training started, the comparison, what follows."""
    blocks: list[Block] = []
    if start.choice is not None:
        blocks.append(f"Training started from {start.name}: {start.choice.reason}.")

    if comparison is None:
        policy = params.tracking.promote
        reason = not_compared or (
            "there is no champion yet"
            if policy == "better"
            else f"tracking.promote is {policy}, which compares nothing"
        )
        return Page("Champion and challenger", [*blocks, f"Nothing was compared: {reason}."])

    old = f"champion, version {comparison.champion_version}"
    rows = [
        (old, f"{comparison.champion_bits_per_byte:.4f}"),
        ("challenger, this run", f"{comparison.challenger_bits_per_byte:.4f}"),
        (
            "difference",
            f"{comparison.difference:+.4f} ({comparison.low:+.4f} to {comparison.high:+.4f})",
        ),
        (
            "documents on which the challenger is better",
            f"{comparison.num_better_documents:,} of {comparison.num_documents:,}",
        ),
        ("documents left out, which the champion had learned", f"{comparison.num_left_out:,}"),
    ]

    if comparison.is_better:
        verdict = (
            "The whole interval is below zero: the challenger becomes champion, the former "
            "champion is previous."
        )
    elif comparison.num_documents < FEWEST_DOCUMENTS:
        verdict = (
            f"{format_too_few(comparison.num_documents)} ({FEWEST_DOCUMENTS} at least): the "
            f"champion stays; {comparison.advice}."
        )
    else:
        verdict = (
            "The interval is not below zero, so the challenger is not shown to be better: "
            "the champion stays."
        )

    caption = "2,000 resamples of the documents, paired; the shaded part is the 95 % interval"
    return Page(
        "Champion and challenger",
        [
            *blocks,
            verdict,
            Table(("", "bits per byte"), rows),
            Picture(render_comparison(comparison), caption),
        ],
    )


def show_outcome(
    session: Session, plan: Plan, score: Score, registered: Registered, ledger: dict[str, float]
) -> None:
    """Show the score, the decision, where the time went, and the link to the run in MLflow."""
    page = session.page
    version = registered.version
    promotion = version.tags.get(PROMOTION_TAG, "")
    page.progress(1.0)
    _, low, high = plan.predictions
    known = find_counting_bits(score, plan)
    counting = "not counted" if known is None else f"{known:.4f}"
    rows = [
        {"what": "version", "value": f"{version.name} {version.version or '(not registered yet)'}"},
        {"what": "aliases", "value": ", ".join(version.aliases) or "none"},
        {"what": "bits per byte", "value": f"{score.bits_per_byte:.4f}"},
        {"what": "network alone", "value": f"{score.network_alone:.4f}"},
        {"what": "counting alone", "value": counting},
        {"what": "predicted", "value": f"{low:.3f} to {high:.3f}"},
        {
            "what": "held-out bytes",
            "value": f"{score.num_bytes:,}{'' if score.is_whole else ' (a part)'}",
        },
        {"what": "SHA-256 of the text", "value": score.text_sha256},
        {"what": "decision", "value": promotion},
    ]

    page.table("score", rows, "The version, its score and what became of it")
    if (decision := registered.decision) is not None:
        shown = Page(decision.title, [promotion, *decision.blocks])
        page.markdown(
            "champion-decision", shown.to_markdown(), "Whether the champion changed, and why"
        )

    budget = session.ledger.budget_seconds
    times = [
        {"stage": name, "seconds": round(s, 2), "share": f"{s / budget:.1%}"}
        for name, s in ledger.items()
    ]
    page.table("ledger", times, "Where the budget's seconds went")

    if version.run_id:
        url, note = find_mlflow_page(session, version.run_id)
        page.link(
            "mlflow-run", url, f"{version.name} version {version.version}: the run in MLflow", note
        )


def find_mlflow_page(session: Session, run_id: str) -> tuple[str, str]:
    """Return the address of a run's page in MLflow, and what has to run for it to open."""
    if is_local(session.home) or not (uri := tracking_uri(session.home)).startswith(
        ("http://", "https://")
    ):
        return f"{MLFLOW_PAGES}/#/runs/{run_id}", "The run in MLflow; opens while `lightlm ui` runs"
    # Without user and password, should the address hold them.
    scheme, _, rest = uri.rstrip("/").partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}/#/runs/{run_id}", "The run in MLflow"


def describe_ledger(entries: dict[str, float], budget_seconds: float) -> Page:
    """Return where the seconds went, until the registration began."""
    rows: list[tuple[str, str, str]] = [
        (name, f"{seconds:.2f}", f"{seconds / budget_seconds:.1%}")
        for name, seconds in entries.items()
    ]
    total = sum(entries.values())
    rows.append(("all", f"{total:.2f}", f"{total / budget_seconds:.1%}"))

    return Page(
        "Where the time went",
        [
            Table(("stage", "seconds", "of the budget"), rows),
            "Up to the registration, which this page is part of.",
        ],
    )
