"""Forecasts of other budgets: they depend on the machine and the text, and not on the budget that
was asked for.
"""

from pathlib import Path

import pytest

from lightlm.budget.candidate import TextFacts
from lightlm.budget.forecast import HORIZONS
from lightlm.budget.probe import MachineRate, Probe
from lightlm.data.subset import materialize_subset
from lightlm.params import load_params
from lightlm.runs.planning import extend_text, plan_for
from lightlm.store.home import find_home

MACHINE = MachineRate(
    device="cpu",
    dtype="bfloat16",
    num_threads=2,
    flops_per_second=4e11,
    memory_bytes=16_000_000_000,
)


def test_two_calls_for_other_hours_forecast_the_same(tmp_path: Path, home: Path) -> None:
    (tmp_path / "notes.txt").write_text(
        "\n\n".join(f"Paragraph {i} tells of lamp {i * i}." for i in range(9000))
    )
    params = load_params(dataset=str(tmp_path / "notes.txt"))
    whole = materialize_subset(home, params.dataset)
    sample = materialize_subset(
        home,
        params.dataset.model_copy(
            update={"max_bytes": whole.num_bytes // 4, "validation_fraction": 0.04}
        ),
    )

    assert sample.is_cut

    forecasts = []
    for hours in (0.02, 1.0):
        for subset in (whole, sample):
            facts = TextFacts(1024, subset.num_bytes // 3, subset.num_bytes, 5_000, 15_000)
            figures = Probe(machine=MACHINE, shapes=[], lead_seconds=10.0 * hours)
            asked = load_params(dataset=str(tmp_path / "notes.txt"), hours=hours)
            plans = [plan_for(s / 3600, asked, facts, subset, figures, home) for _, s in HORIZONS]
            forecasts.append([(plan.summary(), plan.predicted_bits_per_byte) for plan in plans])

    for other in forecasts[1:]:
        for (shape, bits), (other_shape, other_bits) in zip(forecasts[0], other, strict=True):
            assert shape == other_shape
            assert other_bits == pytest.approx(bits, rel=0.01)


def test_a_plan_knows_the_text_that_its_run_reads_and_not_its_own_sample_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "notes.txt").write_text(
        "\n\n".join(f"Paragraph {i} tells of lamp {i * i}." for i in range(9000))
    )
    params = load_params(dataset=str(tmp_path / "notes.txt"))
    sample = materialize_subset(find_home(), params.dataset, sample_bytes=60_000)
    facts = TextFacts(1024, 20_000, sample.num_bytes, 5_000, 15_000)
    text = extend_text(params, facts, sample, MACHINE, 60.0)
    assert text.num_train_bytes == sample.whole_bytes > 2 * sample.num_bytes
    assert text.bytes_per_token == pytest.approx(facts.bytes_per_token, rel=0.01)
