"""The report says score, plan, time and what to do next."""

import io
from dataclasses import replace

from lightlm.console.report import RunReport, compare_with_plan, format_time_used, render_report
from lightlm.console.terminal import open_console

REPORT = RunReport(
    version_name="lightlm version 1", bits_per_byte=2.05, scored_bytes=1_119_083, predicted_low=1.9,
    predicted_high=2.2, num_parameters=4_200_000, total_tokens=3_000_000, training_seconds=51.0,
    elapsed_seconds=70.5, budget_seconds=72.0, shape="4 layers x 256 "
                                                     "dims", promotion="champion: the first "
                                                                       "version",
    ledger={"training": 51.0, "evaluation": 19.5}, notices=["python-docs\x1b[1m was used"],
    next_commands=["lightlm generate 'The'"],
)  # fmt: skip


def test_the_report_begins_with_version_and_score_and_ends_with_the_next_command() -> None:
    console = open_console(io.StringIO())
    console.print(render_report(REPORT, console))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line for line in shown.splitlines() if line.strip()]
    assert "lightlm version 1: 2.050 bits per byte on 1.1 MB" in lines[0]
    assert lines[-1].strip() == "lightlm generate 'The'"

    for words in (
        "champion: the first version",
        "python-docs\\x1b[1m was used",
        "training",
    ):
        assert words in shown

    assert "\x1b" not in shown


def test_the_score_is_held_against_the_plan() -> None:
    assert compare_with_plan(REPORT) == "as predicted (1.900 to 2.200)"
    assert compare_with_plan(replace(REPORT, bits_per_byte=1.8)).startswith("better than")
    assert compare_with_plan(replace(REPORT, bits_per_byte=2.3)).startswith("worse than")


def test_time_over_the_budget_is_said() -> None:
    assert format_time_used(70.5, 72.0) == "70 s of 72 s used"
    assert format_time_used(75.0, 72.0) == "75 s of 72 s used: 3.0 s over the budget"
