"""The table of runs fits 80 columns and escapes what it shows."""

import io

from lightlm.console.runs import format_scores, render_runs
from lightlm.console.terminal import open_console
from lightlm.tracking.runs import RecordedRun


def test_a_run_fits_into_80_columns_with_its_scores_and_its_version() -> None:
    run = RecordedRun(
        run="20260101-000000-abc123", name="train-0.02h-wikitext", state="finished", started_at=0.0, seconds=60.0,
        hours=0.02, dataset="wiki\x1b[2Jtext-2-v1-of-a-long-name", predicted_bits_per_byte=1.7, bits_per_byte=1.784,
        num_parameters=451_072, losses=[6.9, 4.0, 3.0, 2.0],
        version="models:/wikitext-2-v1-of-a-long-name/12",
    )  # fmt: skip

    console = open_console(io.StringIO())
    console.width = 80
    console.print(render_runs([run], console))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    (line,) = (line for line in shown.splitlines() if "abc123" in line)
    for words in ("01-01", "0.02", "finished", "1.784 (1.70)", "wikitext-2-v1-~ 12"):
        assert words in line

    console.width = 140
    console.print(render_runs([run], console))
    assert "451,072" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_without_a_score_shows_the_plan_alone() -> None:
    assert format_scores(None, 1.7) == "- (1.70)"
    assert format_scores(1.784, None) == "1.784"
