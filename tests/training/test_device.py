import pytest
import torch

from lightlm.errors import ParameterError
from lightlm.model.transformer import Transformer
from lightlm.training.device import build_model, check_flash, describe_devices


def test_the_cpu_is_the_first_device():
    first, *others = describe_devices()
    assert first.kind == "cpu"
    assert all(device.kind != "cpu" for device in others)
    assert all(device.memory_bytes > 0 for device in (first, *others))


def test_a_built_model_has_the_weights_of_its_seed(shape, settings):
    built = build_model(shape(), settings(seed=3))
    wanted = Transformer(shape())
    wanted.initialize(3)
    assert all(
        torch.equal(one, other)
        for one, other in zip(built.parameters(), wanted.parameters(), strict=True)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_precision_is_that_of_computing_the_weights_stay_fp32(shape, settings, dtype):
    built = build_model(shape(), settings(dtype=dtype))
    assert built.compute_dtype == getattr(torch, dtype)
    assert {weight.dtype for weight in built.parameters()} == {torch.float32}


def test_a_flash_kernel_that_the_device_lacks_is_refused_with_the_reason(settings):
    with pytest.raises(ParameterError, match="no flash kernel on Apple GPUs"):
        check_flash(settings(device="mps", attention="flash"))


def test_the_cpus_flash_kernel_computes_what_the_other_kernels_do(shape, settings, draw_batch):
    batch = draw_batch()
    nats = []
    for attention in ("flash", "sdpa", "matmul"):
        model = build_model(shape(), settings(attention=attention))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02)
            nats.append(model(batch.inputs, batch.targets))
    torch.testing.assert_close(nats[0], nats[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(nats[0], nats[2], atol=1e-5, rtol=1e-5)
