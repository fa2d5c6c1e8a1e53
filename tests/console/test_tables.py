"""The tables hold what they are given, escaped, and nothing is lost at a pipe's width."""

import io
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import RenderableType

from lightlm.budget.plan import Alternative, Plan
from lightlm.console.tables import (
    MAX_ALTERNATIVES,
    render_checks,
    render_ledger,
    render_plan,
    render_side_by_side,
    render_versions,
)
from lightlm.console.terminal import open_console
from lightlm.model.config import ModelConfig
from lightlm.system import Check


@dataclass(frozen=True)
class Version:
    """A registered version."""

    version: str
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    created_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    run_id: str = ""


def render(drawing: RenderableType) -> str:
    """Return what stands on a pipe."""
    console = open_console(io.StringIO())
    console.print(drawing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def make_plan(num_alternatives: int) -> Plan:
    """Return a plan with runners-up."""
    config = ModelConfig(
        vocab_size=2048, num_layers=4, model_dim=256, num_heads=4, num_kv_heads=4, head_dim=64, ffn_dim=768,
        context_length=128,
    )  # fmt: skip

    # Only what the table shows: the rest of a plan may change without this test.
    return Plan.model_construct(
        model=config, num_parameters=4_200_000, expected_tokens=3_000_000, expected_epochs=1.2,
        tokens_per_second=61_000.0, training_seconds=49.0, reserve_seconds=11.0, memory_bytes=300_000_000,
        predicted_bits_per_byte=2.01, predicted_low=1.9, predicted_high=2.15, reasons=["this text is [small]"],
        alternatives=[
            Alternative(summary=f"runner-up {i}", predicted_bits_per_byte=2.02 + i) for i in range(num_alternatives)
        ],
    )  # fmt: skip


def test_a_check_says_what_was_found_and_what_to_do() -> None:
    checks = [
        Check(name="Python", status="pass", message="3.11.7"),
        Check(name="GPU", status="warn", message="none", fix="give --device cpu"),
        Check(name="disk", status="fail", message="0.2 GB free\x1b[2J", fix="free 1 GB"),
    ]
    shown = render(render_checks(checks, open_console(io.StringIO())))
    for words in ("Python", "3.11.7", "give --device cpu", "0.2 GB free\\x1b[2J", "free 1 GB"):
        assert words in shown
    assert "\x1b" not in shown


def test_the_plan_stands_above_its_runners_up_with_reasons() -> None:
    shown = render(render_plan(make_plan(9), open_console(io.StringIO())))
    assert "4 layers x 256 dims" in shown
    assert "2.010 (1.900 to 2.150)" in shown
    assert "4.20 M parameters" in shown
    assert "this text is [small]" in shown
    assert f"runner-up {MAX_ALTERNATIVES - 1}" in shown
    assert f"runner-up {MAX_ALTERNATIVES}" not in shown
    assert shown.index("4 layers") < shown.index("runner-up 0")


def test_the_ledger_adds_up() -> None:
    shown = render(render_ledger({"start-up": 2.0, "training": 52.0, "evaluation": 18.0}, 72.0))
    assert "72.2%" in shown
    assert shown.splitlines()[-2].split() == ["all", "72", "s", "100.0%"]


def test_versions_show_their_facts_and_survive_tags_written_by_hand() -> None:
    when = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    facts = {
        "bits_per_byte": "2.01234",
        "num_parameters": "4200000",
        "hours": "0.02",
        "dataset": "my\x07text",
    }

    shown = render(
        render_versions(
            [
                Version("3", ("champion",), facts, when),
                Version("2", (), {"bits_per_byte": "very [good]"}, when),
            ]
        )
    )

    for words in ("champion", "2.012", "4.20 M", "0.02", "my\\x07text", "very [good]"):
        assert words in shown
    assert shown.count(f"{when.astimezone():%Y-%m-%d %H:%M}") == 2


def test_a_version_shows_the_loss_of_its_run_where_this_machine_has_it() -> None:
    versions = [Version("2", run_id="known"), Version("1", run_id="of another machine")]
    shown = render(render_versions(versions, {"known": [9.0, 8.0, 1.0]}))
    second, first = (line for line in shown.splitlines() if line.strip().startswith(("1", "2")))
    assert "█" in second
    assert not set("▁█") & set(first)


def test_each_text_has_a_column_of_its_own_and_is_escaped() -> None:
    console = open_console(io.StringIO())
    console.print(
        render_side_by_side({"version 2": "one [bold]text", "version 3": "another\x1b[2J"})
    )
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "version 2" in shown.splitlines()[1]
    assert "version 3" in shown.splitlines()[1]
    assert "one [bold]text" in shown
    assert "another\\x1b[2J" in shown
    assert "\x1b" not in shown
