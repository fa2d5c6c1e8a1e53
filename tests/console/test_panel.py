"""The panel: what it shows of a plan and of numbers, and that it fits a small terminal."""

import io
import math

import pytest

from lightlm.budget.ledger import Ledger
from lightlm.console.numbers import TrainingNumbers
from lightlm.console.panel import predict_curve, read_memory, render_panel
from lightlm.console.terminal import open_console
from lightlm.training.config import TrainerConfig
from lightlm.training.events import Sampled, StepDone, Validated
from tests.console.test_tables import make_plan

PLAN = make_plan(0).model_copy(
    update={
        "trainer": TrainerConfig(batch_tokens=2048, micro_batch_size=16),
        "matrix_flops_per_second": 4e11,
        "bytes_per_token": 3.5,
    }
)


def train(steps: int = 50) -> TrainingNumbers:
    """Return the numbers of a run that is halfway."""
    numbers = TrainingNumbers()
    for step in range(1, steps + 1):
        progress = 0.5 * step / steps
        numbers.take(
            StepDone(
                step, progress, 8 - 6 * progress, 1 - progress, 0.5, 1000, 1000 * step, 0.5, 0.0
            )
        )
    numbers.take(Validated(steps, 0.5, 2.25, 0.1))
    numbers.take(Sampled(steps, 0.5, "The", " sea " * 200))
    return numbers


def render(width: int, height: int, *, encoding: str = "utf-8") -> list[str]:
    """Return the panel's lines on a terminal of that size."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = open_console(stream)
    console.width = width
    console.height = height
    ledger = Ledger(0.02, started_at=0.0, clock=lambda: 24.0)
    console.print(
        render_panel(ledger, f"Training {PLAN.summary()}", train(), PLAN, 1_200_000_000, console)
    )
    stream.seek(0)
    return stream.read().splitlines()


def test_the_panel_shows_budget_choice_numbers_limit_rate_memory_forecast_and_sample() -> None:
    shown = "\n".join(render(100, 30))
    for words in (
        "24 s of 72 s, 48 s left",
        PLAN.summary(),
        "step 50",
        "2.250 bits per byte",
        "2,000 tokens/s",
        "of the machine's limit",
        "learning rate",
        "memory 1.2 GB",
        f"forecast {PLAN.predicted_bits_per_byte:.3f}",
        "The sea sea",
    ):
        assert words in shown, words


@pytest.mark.parametrize("size", [(80, 24), (40, 24), (200, 60)])
def test_the_panel_leaves_room_for_what_stands_above_it(size: tuple[int, int]) -> None:
    width, height = size
    lines = render(width, height)
    assert len(lines) <= max(17, height - 7)
    assert max(map(len, lines)) <= width


def test_a_low_terminal_gets_no_curve() -> None:
    assert len(render(80, 15)) < len(render(80, 24))


def test_an_old_encoding_gets_plain_marks() -> None:
    shown = "\n".join(render(80, 24, encoding="latin-1"))
    assert "o held out" in shown


def test_the_forecast_falls_and_ends_in_what_the_plan_predicted() -> None:
    predict = predict_curve(PLAN)
    assert predict is not None
    values = [predict(progress / 20) for progress in range(1, 21)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(PLAN.predicted_bits_per_byte)


def test_training_loss_is_drawn_in_bits_per_byte() -> None:
    numbers = TrainingNumbers()
    numbers.take(StepDone(1, 0.1, 3.5 * math.log(2), 1.0, 0.5, 1000, 1000, 0.5, 0.0))
    numbers.take(StepDone(2, 0.2, float("nan"), 1.0, 0.5, 1000, 2000, 0.5, 0.0))
    assert numbers.bits_curve(3.5) == [(pytest.approx(0.1), pytest.approx(1.0))]
    assert numbers.bits_curve(0.0) == []


def test_memory_counts_this_process_at_least() -> None:
    assert read_memory() > 1_000_000
