import pytest

from lightlm.budget.machines import MACHINES_FOLDER, list_machines, load_machine
from lightlm.budget.planner import plan
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import Closing
from lightlm.errors import ParameterError
from lightlm.model.accounting import flops_per_token
from lightlm.params import load_params


@pytest.mark.parametrize("name", list_machines())
def test_a_machine_says_where_its_figures_are_from_and_trains_below_its_matrix_rate(name):
    machine = load_machine(name)
    assert machine.sources
    rates = [rate for _, rate in sorted(machine.trained_tflops.items())]
    assert rates == sorted(rates)
    assert rates[-1] < machine.matrix_tflops


def test_the_machines_that_people_have_are_there():
    wanted = {"h100", "h100x8", "rtx-4090", "rtx-3060", "t4", "v100", "m3-max", "cpu-16"}
    assert wanted <= set(list_machines())


def test_figures_have_the_rates_of_the_file_at_its_widths_and_between_them():
    machine = load_machine("h100")
    probe = machine.to_probe()
    for width, rate in machine.trained_tflops.items():
        assert probe.efficiency_at(width, is_compiled=True) == pytest.approx(1e12 * rate)
    assert 390e12 < probe.efficiency_at(768, is_compiled=True) < 475e12
    for shape in probe.shapes:
        rate = shape.tokens_per_second * flops_per_token(shape.model)
        assert rate == pytest.approx(shape.achieved_flops)


@pytest.mark.parametrize("name", ["h100", "t4", "m3-max", "cpu-16", "h100x8"])
def test_a_machine_plans_what_fits_its_memory(name, text):
    machine = load_machine(name)
    made = plan(load_params(hours=1), text, machine.to_probe(), TimeLeft(3580, Closing(2.0)))
    assert made.memory_bytes < 1e9 * machine.memory_gb
    assert made.trainer.device == machine.device
    assert made.trainer.dtype == machine.dtype
    assert made.trainer.num_devices == machine.num_devices
    assert made.trainer.compile == (machine.device != "cpu")


def test_eight_cards_plan_more_than_one_and_say_what_messages_cost(text):
    endless = text.extended(10**12)
    one, eight = (
        plan(
            load_params(hours=1), endless, load_machine(name).to_probe(), TimeLeft(3580, Closing(2))
        )
        for name in ("h100", "h100x8")
    )
    assert eight.predicted_bits_per_byte < one.predicted_bits_per_byte
    assert eight.matrix_flops_per_second == 8 * one.matrix_flops_per_second
    assert any("8 devices together" in reason for reason in eight.reasons)


def test_a_plan_says_what_one_more_machine_would_bring_where_it_brings_something(text):
    def tell(name, amount):
        figures = load_machine(name).to_probe()
        made = plan(load_params(hours=8), amount, figures, TimeLeft(28_780, Closing(2)))
        return [reason for reason in made.reasons if reason.startswith("one more such machine")]

    (sentence,) = tell("t4", text.extended(10**12))
    assert "times as fast" in sentence
    assert tell("t4", text) == []  # the text is too small for more
    assert tell("cpu-16", text.extended(10**12)) == []


def test_an_unknown_machine_is_refused_with_those_there_are():
    with pytest.raises(ParameterError, match=r"no machine is called abacus; give one of a100.*t4"):
        load_machine("abacus")


def test_a_machine_of_ones_own_is_a_file_with_the_same_keys(tmp_path):
    content = (MACHINES_FOLDER / "t4.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(content.replace("memory_gb: 15", "memory_gb: 31"), encoding="utf-8")
    assert load_machine(str(path)).memory_gb == 31

    path.write_text(content.replace("memory_gb: 15", "memory_gb: none"), encoding="utf-8")
    with pytest.raises(ParameterError, match="memory_gb"):
        load_machine(str(path))
    path.write_text("{[", encoding="utf-8")
    with pytest.raises(ParameterError, match="no YAML"):
        load_machine(str(path))
    with pytest.raises(ParameterError, match="cannot read"):
        load_machine(str(tmp_path / "nothing.yaml"))
