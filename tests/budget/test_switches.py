import pytest

from lightlm.budget.switches import check_switches, explain_switches
from lightlm.errors import ParameterError
from lightlm.params import load_params
from lightlm.system import Device, SystemReport
from lightlm.training.config import TrainerConfig

DEMANDED = load_params(overrides={"model.flash_attention": True})


def describe(
    kind: str, supports_flash_attention: bool, capability: str | None = None
) -> SystemReport:
    device = Device(
        kind=kind,
        name="Some device",
        memory_bytes=1 << 34,
        compute_capability=capability,
        supports_bfloat16=True,
        supports_flash_attention=supports_flash_attention,
    )
    return SystemReport.model_construct(devices=[device])


@pytest.mark.parametrize(
    ("kind", "capability", "got"),
    [("cuda", "7.5", "compute capability 7.5"), ("mps", None, "Some device")],
)
def test_a_flash_kernel_that_is_not_there_is_refused_with_the_reason(
    machine, kind, capability, got
):
    there = machine.model_copy(update={"device": kind})
    with pytest.raises(ParameterError, match=f"flash_attention.*got {got}; leave it false"):
        check_switches(DEMANDED, describe(kind, False, capability), there)
    check_switches(load_params(), describe(kind, False, capability), there)


def test_on_a_gpu_the_flash_kernel_wants_bfloat16(machine):
    there = machine.model_copy(update={"device": "cuda"})
    check_switches(DEMANDED, describe("cuda", True, "9.0"), there)
    with pytest.raises(ParameterError, match=r"wants bfloat16.*got float32.*training\.dtype"):
        check_switches(
            DEMANDED, describe("cuda", True, "9.0"), there.model_copy(update={"dtype": "float32"})
        )


def test_shards_with_one_process_are_refused(machine):
    with pytest.raises(ParameterError, match="sharding is fsdp"):
        check_switches(
            load_params(overrides={"training.sharding": "fsdp"}), describe("cpu", True), machine
        )


def test_what_a_switch_costs_or_changes_is_said():
    plain = TrainerConfig(batch_tokens=64, micro_batch_size=1)
    assert explain_switches(plain) == []
    used = {"sharding": "fsdp", "num_devices": 2, "gradient_checkpointing": True}
    sharded, again = explain_switches(plain.model_copy(update=used))
    assert "each of 2 processes" in sharded
    assert "gradient checkpointing" in again
