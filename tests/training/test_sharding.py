"""Tests of whole tensors put into shards and taken out, in a group of one process; of several,
test_distributed.
"""

import pytest
import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from lightlm.training.device import build_model
from lightlm.training.sharding import gather, gather_model, is_sharded, like, local, put


@pytest.fixture
def group(tmp_path):
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def test_a_sharded_model_has_the_weights_and_the_losses_of_the_whole_one(
    group, shape, settings, draw_batch
):
    whole = build_model(shape(), settings(seed=3))
    cut = build_model(shape(), settings(seed=3, sharding="fsdp"))
    assert is_sharded(cut) and not is_sharded(whole)
    batch = draw_batch()
    losses = [model.compute_loss(batch.inputs, batch.targets)[0] for model in (whole, cut)]
    losses[1].backward()
    assert losses[0] == losses[1]
    with torch.inference_mode():
        assert torch.equal(*(model(batch.inputs, batch.targets) for model in (whole, cut)))

    gathered = gather_model(cut, is_kept=True)
    assert gathered is not None and not is_sharded(gathered)
    for name, weight in gathered.named_parameters():
        assert torch.equal(weight, whole.get_parameter(name))
    assert gather_model(cut, is_kept=False) is None
    assert gather_model(whole, is_kept=True) is whole


def test_what_is_put_in_comes_out(group, shape, settings):
    cut = build_model(shape(), settings(sharding="fsdp"))
    values = torch.randn(cut.embedding.shape)
    put(cut.embedding.data, values)
    assert isinstance(cut.embedding, DTensor)
    assert torch.equal(local(cut.embedding.data), values)
    ((name, found),) = gather({"embedding": cut.embedding})
    assert name == "embedding" and torch.equal(found, values)
    made = like(cut.embedding, values + 1)
    assert isinstance(made, DTensor) and torch.equal(made.full_tensor(), values + 1)


def test_without_shards_a_tensor_is_all_there_is_of_it():
    target = torch.zeros(3, 2)
    values = torch.ones(3, 2)
    put(target, values)
    assert torch.equal(target, values)
    assert local(target) is target
    assert like(target, torch.tensor(5.0)) == 5.0
    assert dict(gather({"a": target}))["a"].data_ptr() == target.data_ptr()
