import pytest
from pydantic import ValidationError

from lightlm.training.config import TrainerConfig


def test_settings_survive_json(settings):
    config = settings(
        optimizer="adamw", seed=2**63 - 1, max_steps=7, dtype="bfloat16", sample_prompt='"\u00e9\n'
    )
    assert TrainerConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"optimizer": "sgd"}, "optimizer"),
        ({"micro_batch_size": 0}, "micro_batch_size"),
        ({"matrix_learning_rate": float("nan")}, "matrix_learning_rate"),
        ({"head_learning_rate": 0.0}, "head_learning_rate"),
        ({"dropout": 1.0}, "dropout"),
        ({"cooldown_fraction": 0.0}, "cooldown_fraction"),
        ({"learning_rate": 0.1}, "learning_rate"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name(settings, change, name):
    with pytest.raises(ValidationError, match=name):
        settings(**change)
