import io

from rich.console import Console

from lightlm.budget.forecast import Forecast, judge_plans
from lightlm.budget.history import FinishedRun
from lightlm.console.forecasts import render_calibration, render_forecasts


def show(drawn) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(drawn)
    return console.file.getvalue()


def test_a_forecast_is_a_line_a_budget_with_its_interval():
    entry = Forecast(
        name="1 h", hours=1.0, shape="4 layers x 256 dims", bits_per_byte=1.3, low=1.25, high=1.35
    )
    shown = show(render_forecasts([entry]))
    assert "1 h" in shown
    assert "1.300 (1.250 to 1.350)" in shown
    assert "4 layers x 256 dims" in shown


def test_the_calibration_tells_each_run_and_how_many_were_as_foreseen():
    good = FinishedRun(
        run="a",
        ended_at=1e9,
        hardware_id="m",
        hours=0.02,
        dataset="novel\x1b[31m",
        text_sha256="t",
        shape="s",
        matrix_parameters=1,
        seen_bytes=1,
        unique_bytes=1,
        difficulty=1,
        training_seconds=1,
        planned_tokens_per_second=1,
        tokens_per_second=1,
        predicted_bits_per_byte=1.5,
        predicted_low=1.4,
        predicted_high=1.6,
        bits_per_byte=1.53,
        is_whole=True,
    )

    runs = [good, good.model_copy(update={"run": "b", "bits_per_byte": 1.8})]
    shown = show(render_calibration(runs, judge_plans(runs)))
    assert "+2.0%" in shown
    assert "+20.0%" in shown
    assert "outside" in shown
    assert "1 of 2 runs within the interval of their plan; mean error +11.0%" in shown
    assert "\x1b" not in shown
