import pytest
import torch

from lightlm.errors import CorruptError, ParameterError
from lightlm.store.home import find_home
from lightlm.training.checkpoint import (
    TrainingState,
    drop_checkpoints,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    load_weights,
    save_checkpoint,
)
from lightlm.training.stop_criterion import StepCriterion
from lightlm.training.trainer import Progress, train


def copy_state(model, optimizer):
    tensors = dict(model.named_parameters()) | optimizer.state_tensors()
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def is_same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def take_steps(model, optimizer, config, batches, start, end):
    """Take steps `start` to `end` of 10."""
    counters = Progress(step=start)
    steps = train(model, optimizer, batches(start), config, StepCriterion(10), counters=counters)
    for event in steps:
        if event.step == end:
            break


def damage(folder, name="model.safetensors"):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if name.endswith(".safetensors") else content[: len(content) // 2])


@pytest.fixture
def saved(build, settings, batches, tmp_path):
    """Return a folder of checkpoints after steps 1 and 2, and the state of each."""
    config = settings()
    model, optimizer = build(config)
    states = []
    for step in (1, 2):
        take_steps(model, optimizer, config, batches, step - 1, step)
        save_checkpoint(tmp_path / "checkpoints", model, optimizer, TrainingState(step=step))
        states.append(copy_state(model, optimizer))
    return tmp_path / "checkpoints", states


@pytest.mark.parametrize(
    "change", [{}, {"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 16}]
)
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_ten_steps_are_five_a_checkpoint_and_five_more(
    build, settings, batches, tmp_path, kind, change
):
    config = settings(optimizer=kind, dropout=0.1, weight_decay=0.1)
    straight = build(config, **change)
    take_steps(*straight, config, batches, 0, 10)
    halted = build(config, **change)
    take_steps(*halted, config, batches, 0, 5)
    save_checkpoint(tmp_path, *halted, TrainingState(step=5, total_tokens=320))
    resumed = build(config.model_copy(update={"seed": 9}), **change)
    state = load_latest(find_home(), tmp_path, *resumed)
    assert state == TrainingState(step=5, total_tokens=320)
    take_steps(*resumed, config, batches, state.step, 10)
    assert is_same(copy_state(*resumed), copy_state(*straight))
    assert not is_same(copy_state(*halted), copy_state(*straight))


def test_the_whole_state_comes_back(build, settings, tmp_path):
    state = TrainingState(
        step=12, total_tokens=768, spent_seconds=3.5, micro_batch_size=2, best_bits_per_byte=1.75
    )
    folder = save_checkpoint(tmp_path, *build(settings()), state)
    assert load_checkpoint(folder, *build(settings())) == state


def test_without_checkpoints_there_is_nothing_to_load(build, settings, tmp_path):
    assert load_latest(find_home(), tmp_path / "none", *build(settings())) is None


def test_the_newest_two_are_kept(build, settings, tmp_path):
    model, optimizer = build(settings())
    for step in (9, 10, 999_999, 1_000_000):
        save_checkpoint(tmp_path, model, optimizer, TrainingState(step=step))
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [
        "step-001000000",
        "step-000999999",
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "manifest.json"])
def test_where_the_newest_is_damaged_the_one_before_it_is_loaded(build, settings, saved, name):
    parent, states = saved
    damage(parent / "step-000000002", name)
    both = build(settings())
    reported = []
    assert load_latest(
        find_home(), parent, *both, report=lambda *one: reported.append(one)
    ) == TrainingState(step=1)

    assert is_same(copy_state(*both), states[0])
    ((folder, aside, error),) = reported
    assert folder == parent / "step-000000002"
    assert not folder.exists()
    assert (aside / name).exists(), "it is kept where a person can look at it"
    assert name in str(error)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "manifest.json"])
def test_where_the_newest_lacks_a_file_the_one_before_it_is_loaded(build, settings, saved, name):
    parent, _ = saved
    (parent / "step-000000002" / name).unlink()
    assert load_latest(find_home(), parent, *build(settings())) == TrainingState(step=1)


def test_where_all_are_damaged_training_starts_anew(build, settings, saved):
    parent, _ = saved
    for folder in list_checkpoints(parent):
        damage(folder)
    both = build(settings())
    before = copy_state(*both)
    assert load_latest(find_home(), parent, *both) is None
    assert is_same(copy_state(*both), before)


def test_the_step_of_a_damaged_checkpoint_can_be_saved_again(build, settings, saved):
    parent, _ = saved
    damage(parent / "step-000000002")
    model, optimizer = build(settings())
    load_latest(find_home(), parent, model, optimizer)
    save_checkpoint(parent, model, optimizer, TrainingState(step=2, total_tokens=5))
    assert load_latest(find_home(), parent, *build(settings())) == TrainingState(
        step=2, total_tokens=5
    )


def test_what_is_damaged_is_found_before_it_touches_the_weights(build, settings, saved):
    parent, _ = saved
    damage(parent / "step-000000002", "optimizer.safetensors")
    both = build(settings())
    before = copy_state(*both)
    with pytest.raises(CorruptError, match=r"optimizer\.safetensors has SHA-256"):
        load_checkpoint(parent / "step-000000002", *both)
    assert is_same(copy_state(*both), before)


def test_a_checkpoint_of_another_shape_is_refused_and_stays(build, settings, saved):
    parent, _ = saved
    with pytest.raises(ParameterError, match="another shape"):
        load_latest(find_home(), parent, *build(settings(), num_layers=1))
    assert len(list_checkpoints(parent)) == 2


def test_weights_are_loaded_in_place_so_that_the_optimizer_still_moves_them(build, settings, saved):
    parent, _ = saved
    model, _ = build(settings())
    addresses = [weight.data_ptr() for weight in model.parameters()]
    load_weights(parent / "step-000000002", model)
    assert [weight.data_ptr() for weight in model.parameters()] == addresses


def test_dropped_checkpoints_leave_no_folder(saved):
    parent, _ = saved
    drop_checkpoints(parent)
    assert not parent.exists()
    drop_checkpoints(parent)
