"""Plans that start from a base: what is tuned, by memory and time, and the forecast."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import Closing
from lightlm.budget.transfer import check_time, forecast_transfer, plan_from_base
from lightlm.budget.tuning import (
    base_memory_bytes,
    choose_base_trainer,
    count_trained,
    list_tuned,
    shape_base,
)
from lightlm.errors import ParameterError
from lightlm.model.adapters import add_adapters, freeze_lower
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.params import Params, load_params
from lightlm.training.messages import BaseProbe, TunedTiming
from tests.budget.conftest import MACHINE, WIKITEXT

BASE = ModelConfig(
    vocab_size=49173, num_layers=30, model_dim=576, num_heads=9, num_kv_heads=3, head_dim=64,
    ffn_dim=1536, context_length=8192, tie_embeddings=True, rope_theta=1e5, family="llama",
)  # fmt: skip
PROBE = BaseProbe(
    bits_per_byte=1.3,
    num_bytes=100_000,
    num_tokens=25_000,
    score_tokens_per_second=1500,
    timings=(TunedTiming(tuned="lora", token_seconds=0.0016, update_seconds=0.02),),
)


MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "start_runs.jsonl"


def with_start(**change: Any) -> Params:
    return load_params(overrides={f"start.{name}": value for name, value in change.items()})


def make_plan(seconds: float, params: Params | None = None, memory: float = 16e9) -> Any:
    machine = MACHINE.model_copy(update={"memory_bytes": int(memory)})
    left = TimeLeft(seconds, Closing(1.0, 1.0))
    return plan_from_base(params or load_params(), WIKITEXT, machine, BASE, PROBE, left)


def test_a_plan_keeps_the_bases_shape_and_reads_a_shorter_context() -> None:
    plan = make_plan(300)
    assert plan.model == BASE.model_copy(update={"context_length": 512, "longest_context": 8192})
    assert plan.planner == "base"
    assert plan.predicted_bits_per_byte < PROBE.bits_per_byte
    assert plan.predicted_low < plan.predicted_bits_per_byte < plan.predicted_high
    assert plan.training_seconds + plan.reserve_seconds <= 300


def test_more_time_is_forecast_to_score_better_and_nothing_as_untouched() -> None:
    bits = [make_plan(seconds).predicted_bits_per_byte for seconds in (60, 300, 1800)]
    assert bits == sorted(bits, reverse=True)
    assert forecast_transfer(1.3, 0, "all") == 1.3


def test_the_law_of_transfer_is_as_far_from_the_runs_that_were_measured_as_is_claimed() -> None:
    runs = [json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()]
    errors = [
        math.log(run["after"] / forecast_transfer(run["before"], run["bytes_read"], run["tuned"]))
        for run in runs
    ]
    assert len(runs) >= 7
    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) < 0.04


def test_hours_that_a_base_cannot_keep_untouched_are_refused_with_those_that_it_can() -> None:
    params = load_params(hours=0.01)

    def check(seconds: float, chosen: Params = params) -> None:
        left = TimeLeft(seconds, Closing(3.0, 1.0))
        check_time(chosen, WIKITEXT, BASE, PROBE, left, "SmolLM2")

    check(60)
    with pytest.raises(
        ParameterError, match=r"0\.01, of which 3 s are left, .* SmolLM2 \("
    ) as told:
        check(3)
    hours = float(re.findall(r"--hours ([\d.]+) or more", str(told.value))[0])
    assert 0.01 < hours < 0.02
    check(3 + 3600 * (hours - 0.01))
    check(3, load_params(hours=0.01, overrides={"budget.max_steps": 6}))


def test_the_first_held_out_document_is_scored_whole_and_its_time_is_kept() -> None:
    left = TimeLeft(60, Closing(3.0, 1.0))
    long = replace(WIKITEXT, num_first_tokens=30_000)
    plan = plan_from_base(load_params(), long, MACHINE, BASE, PROBE, left)
    assert plan.evaluation_seconds == pytest.approx(20.0)
    assert plan.training_seconds < make_plan(60).training_seconds - 10
    with pytest.raises(ParameterError, match="give --hours"):
        longer = replace(WIKITEXT, num_first_tokens=90_000)
        check_time(load_params(hours=0.01), longer, BASE, PROBE, left, "SmolLM2")


def test_memory_decides_what_is_tuned() -> None:
    assert make_plan(3600, with_start(tuned="all")).trainer.tuned == "all"
    assert make_plan(3600, memory=4e9).trainer.tuned != "all"
    with pytest.raises(ParameterError, match=r"start\.tuned=lora"):
        make_plan(3600, with_start(tuned="all"), memory=4e9)


def test_layers_are_computed_again_where_the_trained_weights_want_it_and_not_for_frozen_ones() -> (
    None
):
    few = make_plan(300, with_start(tuned="lora"), memory=4e9).trainer
    assert not few.gradient_checkpointing
    machine = MACHINE.model_copy(update={"memory_bytes": int(4e9)})
    trainer = choose_base_trainer(
        load_params(), machine, shape_base(load_params(), BASE), "all", 0, 1e4
    )
    assert trainer.gradient_checkpointing


def test_frozen_weights_in_fewer_bytes_need_less_memory() -> None:
    trainer = make_plan(300, with_start(tuned="lora")).trainer
    wide, narrow = (base_memory_bytes(BASE, trainer, size) for size in (4, 2))
    assert wide - narrow == pytest.approx(2 * 134.5e6, rel=0.05)


@pytest.mark.parametrize("tuned", ["all", "lora", "last"])
def test_params_name_what_is_tuned(tuned: str) -> None:
    plan = make_plan(300, with_start(tuned=tuned, learning_rate=3e-4, num_tuned_layers=4))
    assert plan.trainer.tuned == tuned
    assert plan.trainer.gain_learning_rate == pytest.approx(3e-4)
    assert plan.trainer.optimizer == "adamw"
    assert plan.trainer.num_tuned_layers == (4 if tuned == "last" else 1)


def test_a_longer_context_than_the_base_reads_is_refused() -> None:
    params = load_params(overrides={"model.context_length": 16384})
    with pytest.raises(ParameterError, match="the base reads 8192"):
        shape_base(params, BASE)


def test_a_mixture_of_experts_has_no_adapters() -> None:
    experts = BASE.model_copy(
        update={
            "family": "qwen3", "num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 64,
        }
    )  # fmt: skip
    assert [tuned for tuned, _ in list_tuned(load_params(), experts)] == ["all", "last"]
    with pytest.raises(ParameterError, match="mixture of experts"):
        list_tuned(with_start(tuned="lora"), experts)


def test_trained_parameters_are_counted_as_they_are() -> None:
    small = BASE.model_copy(update={"num_layers": 3, "vocab_size": 300, "model_dim": 72})
    model = Transformer(small)

    def count() -> int:
        return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)

    assert count_trained(small, "all", 4, 0) == count()
    freeze_lower(model, 2)
    assert count_trained(small, "last", 4, 2) == count()
    add_adapters(model, 4, seed=0)
    assert count_trained(small, "lora", 4, 0) == count()


def test_frozen_weights_take_less_memory() -> None:
    params = load_params()
    model = shape_base(params, BASE)
    taken = [
        base_memory_bytes(model, choose_base_trainer(params, MACHINE, model, tuned, 15, 1e5))
        for tuned in ("all", "last", "lora")
    ]
    assert taken == sorted(taken, reverse=True)


def test_checkpoints_that_cost_too_much_are_left_out() -> None:
    assert make_plan(72, with_start(tuned="all")).trainer.num_checkpoints == 0
    assert make_plan(36_000, with_start(tuned="all")).trainer.num_checkpoints > 0
