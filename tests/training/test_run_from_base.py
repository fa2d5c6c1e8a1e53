"""Training that starts from weights: what is tuned changes, a resumed run goes on, and the result is
never worse than the start.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightlm.model.hugging_face import load_model
from lightlm.store.commit import commit_folder
from lightlm.store.home import find_home
from lightlm.training.events import Checkpointed, Validated
from lightlm.training.run import TrainingRun


@pytest.fixture
def start_folder(make_request):
    """Return the folder of a model that was trained a little."""
    return (
        TrainingRun(find_home(), make_request("start", max_steps=8)).run(lambda event: None).folder
    )


@pytest.fixture
def bfloat16_folder(start_folder, tmp_path):
    """Return the folder of that model with its weights rounded to bfloat16."""

    def write(folder: Path) -> dict[str, object]:
        for path in start_folder.iterdir():
            if path.suffix == ".json":
                shutil.copyfile(path, folder / path.name)
        weights = load_file(start_folder / "model.safetensors")
        rounded = {name: weight.bfloat16() for name, weight in weights.items()}
        save_file(rounded, folder / "model.safetensors", {"format": "pt"})
        (folder / "manifest.json").unlink(missing_ok=True)
        return {}

    commit_folder(tmp_path / "rounded", "model", write)
    return tmp_path / "rounded"


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder).named_parameters())


def from_base(start_folder, **change):
    """Return options of a request that starts from a folder."""
    rates = dict.fromkeys(
        ("embedding_learning_rate", "head_learning_rate", "gain_learning_rate"), 1e-3
    )
    return (
        rates
        | {
            "start_folder": start_folder,
            "keep_start": True,
            "optimizer": "adamw",
            "matrix_learning_rate": 1e-2,
        }
        | change
    )


@pytest.mark.parametrize("tuned", ["all", "lora", "last"])
def test_training_goes_on_from_the_start_and_reports_both_scores(make_request, start_folder, tuned):
    events = []
    request = make_request("tuned", **from_base(start_folder, tuned=tuned, lora_rank=4))
    result = TrainingRun(find_home(), request).run(events.append)
    first = next(event for event in events if isinstance(event, Validated))
    assert (first.step, first.progress) == (0, 0)
    assert result.start_bits_per_byte == first.bits_per_byte
    assert result.final_bits_per_byte < result.start_bits_per_byte
    assert not result.kept_start

    before = weights_of(start_folder)
    after = weights_of(result.folder)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = {name for name in before if before[name].dim() == 2 and name.startswith("layers")}
    if tuned == "all":
        assert changed == set(before)
    elif tuned == "lora":
        assert changed == matrices
        assert (result.folder / "adapter" / "adapter_config.json").is_file()
    else:
        assert changed == {n for n in before if n.startswith("layers.1.")} | {"norm"}


@pytest.mark.parametrize("tuned", ["all", "lora"])
def test_a_result_that_is_worse_than_the_start_is_not_kept(make_request, tuned):
    good = make_request("good", max_steps=150)
    start_folder = TrainingRun(find_home(), good).run(lambda event: None).folder
    rates = {"matrix_learning_rate": 30.0, "gain_learning_rate": 3.0, "gradient_clip_norm": 1e5}
    request = make_request("worse", **from_base(start_folder, tuned=tuned, **rates))
    result = TrainingRun(find_home(), request).run(lambda event: None)
    assert result.kept_start
    assert result.final_bits_per_byte == result.start_bits_per_byte
    before = weights_of(start_folder)
    after = weights_of(result.folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("tuned", ["all", "lora", "last"])
def test_a_stopped_run_goes_on_to_the_same_end(make_request, start_folder, tuned):
    options = from_base(start_folder, tuned=tuned)
    straight = TrainingRun(find_home(), make_request("straight", **options)).run(lambda event: None)
    events = []
    request = make_request("stopped", **options)
    stopped = TrainingRun(
        find_home(),
        request,
        should_stop=lambda: any(isinstance(event, Checkpointed) for event in events),
    ).run(events.append)
    assert stopped.is_stopped
    resumed = TrainingRun(find_home(), request).run(lambda event: None)
    assert resumed.start_bits_per_byte == straight.start_bits_per_byte
    one = weights_of(straight.folder)
    other = weights_of(resumed.folder)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_time_for_a_few_steps_the_start_is_the_result(make_request, start_folder):
    options = from_base(start_folder, max_steps=None, tuned="lora", least_seconds=3600.0)
    result = TrainingRun(find_home(), make_request("late", **options)).run(lambda event: None)
    assert (result.step, result.kept_start, result.start_bits_per_byte) == (0, True, None)
    before = weights_of(start_folder)
    after = weights_of(result.folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_without_checkpoints_saves_its_model_alone(make_request, start_folder):
    request = make_request("plain", **from_base(start_folder, num_checkpoints=0))
    events = []
    result = TrainingRun(find_home(), request).run(events.append)
    assert not any(isinstance(event, Checkpointed) for event in events)
    assert weights_of(result.folder)


def test_updates_smaller_than_bfloat16_tells_apart_are_not_lost(make_request, bfloat16_folder):
    small = dict.fromkeys(
        ("embedding_learning_rate", "head_learning_rate", "gain_learning_rate"), 3e-7
    )
    options = from_base(
        bfloat16_folder, dtype="bfloat16", matrix_learning_rate=3e-6, keep_start=False, **small
    )
    request = make_request("small", **options, max_steps=8)
    result = TrainingRun(find_home(), request).run(lambda event: None)
    before = weights_of(bfloat16_folder)
    after = weights_of(result.folder)
    for name, weight in before.items():
        assert (after[name] != weight).float().mean() > 0.1, name
        assert (after[name].bfloat16() == weight.bfloat16()).float().mean() > 0.8, name


@pytest.mark.parametrize("tuned", ["lora", "last"])
def test_frozen_weights_are_kept_in_bfloat16_and_come_back_as_they_were(
    make_request, bfloat16_folder, tuned
):
    options = from_base(bfloat16_folder, tuned=tuned, dtype="bfloat16", lora_rank=4)
    request = make_request("narrow", **options)
    events = []
    run = TrainingRun(find_home(), request, should_stop=lambda: len(events) > 3)
    assert run.run(events.append).is_stopped
    kept = {name: weight.dtype for name, weight in run.model.named_parameters()}
    assert kept["embedding"] == kept["layers.0.attention.output"] == torch.bfloat16
    assert kept["norm"] == torch.float32

    resumed = TrainingRun(find_home(), request).run(lambda event: None)
    straight = TrainingRun(find_home(), make_request("straight", **options)).run(lambda event: None)
    before, after, other = map(weights_of, (bfloat16_folder, resumed.folder, straight.folder))
    assert all(torch.equal(after[name], other[name]) for name in before)
    assert torch.equal(before["embedding"], after["embedding"])
    assert not torch.equal(before["layers.1.attention.output"], after["layers.1.attention.output"])
