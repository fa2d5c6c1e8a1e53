"""The report of a finished run: its notices, and a summary that survives its way to the disk."""

import json

from rich.console import Console

from lightlm.budget.plan import Plan
from lightlm.console.report import render_report
from lightlm.evaluation.score import Score
from lightlm.model.config import ModelConfig
from lightlm.runs.summary import RunSummary, describe_summary
from lightlm.training.config import TrainerConfig

PLAN = Plan(
    planner="manual",
    model=ModelConfig(
        vocab_size=512,
        num_layers=1,
        model_dim=8,
        num_heads=1,
        num_kv_heads=1,
        head_dim=8,
        ffn_dim=8,
        context_length=8,
    ),
    trainer=TrainerConfig(batch_tokens=1000, micro_batch_size=1),
    num_parameters=3,
    expected_tokens=1,
    expected_epochs=1.0,
    tokens_per_second=1.0,
    matrix_flops_per_second=1.0,
    training_seconds=1.0,
    reserve_seconds=1.0,
    validation_tokens=1,
    sample_tokens=1,
    evaluation_seconds=1.0,
    memory_bytes=1,
    predicted_bits_per_byte=1.5,
    predicted_low=1.0,
    predicted_high=2.0,
    keep_best=False,
    reasons=[],
    alternatives=[],
)


def summary_of(*, factor: float, num_steps: int = 500, is_whole: bool = True) -> RunSummary:
    """Return the summary of a run that ended at this fraction of its peak learning rate."""
    score = Score(
        bits_per_byte=2.0,
        nats_per_token=1.0,
        num_bytes=10,
        num_tokens=5,
        num_documents=1,
        text_sha256="",
        is_whole=is_whole,
    )

    return RunSummary(
        run_id="",
        model_name="notes",
        model_version="1",
        aliases=[],
        promotion="",
        bits_per_byte=2.0,
        score=score,
        budget_seconds=1.0,
        elapsed_seconds=1.0,
        ledger={},
        plan=PLAN,
        trained_until_seconds=1.0,
        tokens=1000 * num_steps,
        tokens_per_second=1.0,
        mfu=0.5,
        final_learning_rate_factor=factor,
        dataset={"notice": ""},
        shape="",
        folder="",
    )


def test_a_run_that_ended_annealed_has_no_notice_of_its_learning_rate() -> None:
    assert describe_summary(summary_of(factor=0.002)).notices == []


def test_a_run_that_ended_unannealed_has_a_notice_with_the_rate_it_ended_at() -> None:
    (notice,) = describe_summary(summary_of(factor=0.94)).notices
    assert "94% of its peak" in notice
    assert "the same command again" in notice


def test_the_last_step_of_few_is_a_large_part_of_the_schedule_and_no_notice() -> None:
    assert describe_summary(summary_of(factor=0.05, num_steps=20)).notices == []


def test_a_score_of_a_part_of_the_text_has_a_notice() -> None:
    (notice,) = describe_summary(summary_of(factor=0.0, is_whole=False)).notices
    assert "scored on the first 10 bytes" in notice


def test_a_summary_keeps_the_keys_of_a_plan_on_disk_and_is_read_back() -> None:
    written = summary_of(factor=0.0).model_dump_json()
    assert json.loads(written)["plan"] == PLAN.model_dump(mode="json")
    assert "bytes_a_token" in json.loads(written)["plan"]
    assert RunSummary.model_validate_json(written) == summary_of(factor=0.0)


def test_the_energy_is_shown_where_it_was_read_and_else_nothing_is() -> None:
    summary = summary_of(factor=0.0)
    console = Console(width=100)
    with console.capture() as without:
        console.print(render_report(describe_summary(summary), console))
    assert "counters" not in without.get()

    known = summary.model_copy(update={"joules": {"processor": 900.0}, "grams_co2_per_kwh": 400.0})
    assert RunSummary.model_validate_json(known.model_dump_json()).joules == {"processor": 900.0}
    with console.capture() as shown:
        console.print(render_report(describe_summary(known), console))
    assert "900 J by this machine's counters (processor 900 J); 0.1 g of CO2" in shown.get()
