import pytest

from lightlm.budget.recipe import choose_trainer
from lightlm.params import load_params


@pytest.fixture
def model(probe):
    return probe.shapes[1].model


def choose(
    machine, model, expected_tokens=3e6, train_tokens=3_000_000, max_steps=None, **overrides
):
    return choose_trainer(
        load_params(overrides={f"training.{name}": value for name, value in overrides.items()}),
        machine,
        model,
        expected_tokens=expected_tokens,
        train_tokens=train_tokens,
        is_compiled=False,
        max_steps=max_steps,
    )


def test_a_batch_is_a_whole_number_of_sequences_and_of_micro_batches(machine, model):
    for tokens in (1e4, 1e6, 1e8, 1e10):
        trainer = choose(machine, model, expected_tokens=tokens)
        assert trainer.batch_tokens % model.context_length == 0
        assert (trainer.batch_tokens // model.context_length) % trainer.micro_batch_size == 0


def test_the_context_ramp_is_the_rules_unless_params_fix_it(machine, model):
    assert choose(machine, model).context_ramp_fraction > 0
    assert choose(machine, model, context_ramp_fraction=0.0).context_ramp_fraction == 0.0
    assert choose(machine, model, context_ramp_fraction=0.7).context_ramp_fraction == 0.7


def test_what_params_fix_is_kept(machine, model):
    trainer = choose(
        machine,
        model,
        optimizer="adamw",
        seed=5,
        batch_tokens=1024,
        micro_batch_size=2,
        weight_decay=0.2,
        dropout=0.3,
    )

    assert (trainer.optimizer, trainer.seed) == ("adamw", 5)
    assert (trainer.batch_tokens, trainer.micro_batch_size) == (1024, 2)
    assert (trainer.weight_decay, trainer.dropout) == (0.2, 0.3)


def test_a_batch_of_less_than_a_sequence_is_one_sequence(machine, model):
    trainer = choose(machine, model, batch_tokens=8)
    assert (trainer.batch_tokens, trainer.micro_batch_size) == (model.context_length, 1)


def test_the_scale_multiplies_every_rate(machine, model):
    plain = choose(machine, model)
    scaled = choose(machine, model, learning_rate_scale=0.5)
    for kind in ("matrix", "embedding", "head", "gain"):
        rate = f"{kind}_learning_rate"
        assert getattr(scaled, rate) == pytest.approx(getattr(plain, rate) / 2)


def test_a_text_that_is_read_often_is_regularised(machine, model):
    assert choose(machine, model).dropout == 0.0
    assert choose(machine, model, train_tokens=10_000).dropout > 0.0
    assert choose(machine, model, train_tokens=10_000, dropout=0.0).dropout == 0.0


def test_with_a_number_of_steps_the_recipe_does_not_depend_on_the_speed(machine, model):
    fast, slow = (
        choose(
            machine,
            model,
            expected_tokens=tokens,
            train_tokens=50_000,
            max_steps=6,
            batch_tokens=512,
        )
        for tokens in (1e5, 1e7)
    )

    assert (fast.dropout, fast.weight_decay) == (slow.dropout, slow.weight_decay) == (0.0, 0.0)
    longer = choose(
        machine, model, expected_tokens=1e5, train_tokens=50_000, max_steps=600, batch_tokens=512
    )
    assert longer.weight_decay > 0
