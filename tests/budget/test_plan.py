import pytest
from pydantic import ValidationError

from lightlm.budget.plan import Plan, summarize_shape


def test_a_plan_survives_json(make_plan):
    plan = make_plan()
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_a_plan_says_its_shape_in_a_line(make_plan):
    plan = make_plan(model__num_layers=3, model__model_dim=192)
    assert plan.summary() == "3 layers x 192 dims, 3 heads, vocabulary 2,048, context 128"


def test_experts_are_part_of_the_shape(probe):
    model = probe.shapes[0].model.model_copy(
        update={"num_experts": 8, "num_active_experts": 2, "expert_ffn_dim": 96}
    )
    assert summarize_shape(model).endswith(", context 128, 2 of 8 experts")


def test_a_plan_without_speed_is_refused(make_plan):
    with pytest.raises(ValidationError, match="tokens_per_second"):
        Plan.model_validate(make_plan().model_dump() | {"tokens_per_second": 0.0})
