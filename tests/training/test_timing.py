import pytest
import torch

from lightlm.training.timing import measure_matrix_rate, random_batch, time_steps, used_memory


@pytest.mark.parametrize(
    "change", [{}, {"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 16}]
)
def test_timed_steps_give_consistent_figures(shape, settings, change):
    timing = time_steps(shape(**change), settings(), max_seconds=0.05)
    assert timing.num_steps >= 3
    assert 0 < timing.step_seconds <= timing.slow_step_seconds
    assert timing.tokens_per_second == pytest.approx(64 / timing.step_seconds)
    assert timing.score_tokens_per_second > 0
    assert timing.first_seconds > 0


def test_the_matrix_rate_is_positive_in_each_precision(settings):
    for dtype in ("float32", "bfloat16"):
        assert measure_matrix_rate(settings(dtype=dtype), max_seconds=0.0) > 1e6


def test_a_random_batch_has_the_shape_of_a_real_one(shape, settings):
    batch = random_batch(shape(), settings(batch_tokens=100))
    assert batch.inputs.shape == batch.targets.shape == (6, 16)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert batch.targets.max() < shape().vocab_size


def test_a_batch_has_at_least_one_sequence(shape, settings):
    assert random_batch(shape(), settings(batch_tokens=8)).inputs.shape == (1, 16)


def test_the_memory_used_is_at_least_what_is_held():
    held = torch.ones(16 * 2**20)
    assert used_memory("cpu") >= held.nbytes
