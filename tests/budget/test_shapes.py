import pytest

from lightlm.budget.shapes import (
    WIDTHS,
    build_shape,
    check_shape,
    choose_ffn_dim,
    choose_heads,
    depths_for,
    fits_heads,
    has_same_layers,
)
from lightlm.errors import ParameterError
from lightlm.model.accounting import count_matrix_parameters
from lightlm.params import load_params


def build(**overrides):
    dotted = {f"model.{name}": value for name, value in overrides.items()}
    return build_shape(
        load_params(overrides=dotted),
        vocab_size=512,
        num_layers=2,
        model_dim=128,
        num_heads=4,
        context_length=64,
    )


@pytest.mark.parametrize("dim", WIDTHS)
def test_every_width_has_depths_and_heads_of_64_dimensions(dim):
    assert depths_for(dim)
    assert dim // choose_heads(dim) == 64


@pytest.mark.parametrize(("dim", "heads"), [(100, 2), (96, 2), (160, 2), (32, 1), (768, 12)])
def test_other_widths_have_heads_near_64_dimensions(dim, heads):
    assert choose_heads(dim) == heads


def test_any_even_width_has_a_depth_and_heads_that_divide_it_evenly():
    for dim in range(8, 20_000, 2):
        assert depths_for(dim)
        assert dim % (2 * choose_heads(dim)) == 0


def test_depths_keep_the_aspect_of_models_that_train_well():
    assert depths_for(256) == list(range(2, 11))
    assert depths_for(16) == [1]
    assert depths_for(16_384) == [64]


@pytest.mark.parametrize(("dim", "ffn_dim"), [(8, 64), (64, 192), (192, 512), (768, 2048)])
def test_the_feed_forward_is_8_thirds_of_the_width_in_steps_of_64(dim, ffn_dim):
    assert choose_ffn_dim(dim) == ffn_dim


def test_what_params_fix_is_kept():
    model = build(num_kv_heads=2, ffn_dim=96, tie_embeddings=True)
    assert (model.num_heads, model.num_kv_heads, model.head_dim) == (4, 2, 32)
    assert (model.ffn_dim, model.tie_embeddings, model.num_experts) == (96, True, 0)


@pytest.mark.parametrize("num_active_experts", [1, 2, 3])
def test_active_experts_together_cost_about_the_dense_feed_forward(num_active_experts):
    dense = build()
    model = build(mixture_of_experts=True, num_experts=8, num_active_experts=num_active_experts)
    assert (model.num_experts, model.num_active_experts) == (8, num_active_experts)
    assert model.expert_ffn_dim * num_active_experts == pytest.approx(
        dense.ffn_dim, abs=8 * num_active_experts
    )
    assert count_matrix_parameters(model) == pytest.approx(count_matrix_parameters(dense), rel=0.02)


def test_key_value_heads_that_do_not_divide_the_heads_are_refused_by_name():
    with pytest.raises(ParameterError, match=r"model\.num_kv_heads 3 does not divide num_heads 4"):
        build(num_kv_heads=3)


def test_heads_that_do_not_divide_the_width_are_refused_by_name():
    with pytest.raises(ParameterError, match=r"model\.model_dim 128 does not divide into 3 heads"):
        build_shape(
            load_params(),
            vocab_size=512,
            num_layers=1,
            model_dim=128,
            num_heads=3,
            context_length=64,
        )


def test_shapes_of_equal_layers_differ_in_depth_at_most():
    params = load_params()
    one = build_shape(
        params, vocab_size=512, num_layers=2, model_dim=64, num_heads=1, context_length=64
    )
    assert has_same_layers(one, one.model_copy(update={"num_layers": 7}))
    assert not has_same_layers(one, one.model_copy(update={"ffn_dim": 64}))


def test_the_heads_chosen_for_each_width_fit_it():
    assert all(fits_heads(dim, choose_heads(dim), None) for dim in WIDTHS)


@pytest.mark.parametrize(
    "overrides",
    [
        {"model.num_heads": 3},
        {"model.num_heads": 7},
        {"model.num_kv_heads": 2},
        {"model.num_heads": 3, "budget.planner": "manual"},
        {"model.context_length": 999, "dataset.max_bytes": 1000},
    ],
)
def test_a_shape_that_some_width_can_have_is_let_in(overrides):
    check_shape(load_params(overrides=overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"model.num_heads": 17},
            r"model.num_heads 17: a width of 64 to 4,096 does not divide into such heads",
        ),
        (
            {"model.num_heads": 5, "budget.planner": "manual"},
            r"model.num_heads 5: the width 768 does not divide",
        ),
        (
            {"model.model_dim": 4096, "model.num_heads": 2},
            r"of an even number of dimensions and 1,024 at most",
        ),
        ({"model.model_dim": 9}, r"model.model_dim 9: the width 9 does not divide"),
        ({"model.num_kv_heads": 997}, r"model.num_kv_heads 997: .*give model.num_heads a divisor"),
        (
            {"model.context_length": 1000, "dataset.max_bytes": 1000},
            r"model.context_length 1,000 is more tokens than",
        ),
    ],
)
def test_what_no_width_can_have_and_no_text_can_fill_is_refused(overrides, message):
    with pytest.raises(ParameterError, match=message):
        check_shape(load_params(overrides=overrides))
