"""Tests of the system check: limits of containers, one line with a remedy for each check."""

from pathlib import Path

import pytest

from lightlm import system
from lightlm.params import load_params
from lightlm.system import (
    Device,
    check_system,
    count_cores,
    name_hardware,
    read_available_memory,
    read_cgroup_memory,
    read_cpu_flags,
    read_cpu_name,
    read_cpu_quota,
    read_memory_limit,
)

CPU = Device(
    kind="cpu",
    name="Test CPU",
    memory_bytes=8 << 30,
    supports_bfloat16=False,
    supports_flash_attention=True,
)
GPU = Device(
    kind="cuda",
    name="Test GPU",
    memory_bytes=24 << 30,
    compute_capability="8.9",
    supports_bfloat16=True,
    supports_flash_attention=True,
)


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000\n", 0.5), ("odd\n", None)],
)
def test_the_quota_of_cgroup_v2_is_read(tmp_path: Path, content: str, cores: float | None) -> None:
    write(tmp_path / "cpu.max", content)
    assert read_cpu_quota(tmp_path) == cores


def test_the_quota_of_cgroup_v1_is_read(tmp_path: Path) -> None:
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", "400000\n")
    write(tmp_path / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert read_cpu_quota(tmp_path) == 4.0
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", "-1\n")
    assert read_cpu_quota(tmp_path) is None
    assert read_cpu_quota(tmp_path / "nothing") is None


def test_the_memory_limit_of_both_versions_is_read(tmp_path: Path) -> None:
    assert read_cgroup_memory(tmp_path) == (None, 0)
    write(tmp_path / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path / "memory" / "memory.usage_in_bytes", "5\n")
    assert read_cgroup_memory(tmp_path) == (None, 0)
    write(tmp_path / "memory.max", "1000\n")
    write(tmp_path / "memory.current", "400\n")
    assert read_cgroup_memory(tmp_path) == (1000, 400)
    write(tmp_path / "memory.max", "max\n")
    assert read_cgroup_memory(tmp_path) == (None, 0)


def test_this_machine_has_a_core_memory_and_a_name() -> None:
    assert count_cores() >= 1
    assert 0 < read_available_memory() <= read_memory_limit()
    assert read_cpu_name()


def test_flags_and_name_are_read_from_cpuinfo(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name : Some CPU @ 3 GHz\nflags : fpu avx512_bf16 sse\n")
    assert read_cpu_name(path) == "Some CPU @ 3 GHz"
    assert "avx512_bf16" in read_cpu_flags(path)
    assert read_cpu_flags(tmp_path / "missing") == set()


def test_a_machine_without_gpu_may_train_and_is_told(home: Path) -> None:
    report = check_system(load_params(), home, [CPU])
    by_name = {check.name: check for check in report.checks}
    assert report.failed == []
    assert by_name["GPU"].status == "warn"
    assert by_name["bfloat16"].status == "warn"
    assert all(check.fix for check in report.checks if check.status != "pass")
    assert set(by_name) == {"Python", "GPU", "bfloat16", "CPU cores", "Memory", "Disk", "Tokenizer"}


def test_a_gpu_is_named_with_memory_and_capability(home: Path) -> None:
    report = check_system(load_params(), home, [CPU, GPU])
    gpu = next(check for check in report.checks if check.name == "GPU")
    assert gpu.status == "pass"
    assert "Test GPU (26 GB, compute capability 8.9)" in gpu.message


def test_too_little_disk_and_memory_fail_with_what_to_do(home: Path) -> None:
    params = load_params(
        overrides={
            "system.min_free_disk_bytes": 10**18,
            "system.min_available_memory_bytes": 10**18,
        }
    )
    failed = check_system(params, home, [CPU]).failed
    assert [check.name for check in failed] == ["Memory", "Disk"]
    assert all(check.fix for check in failed)


def test_equal_machines_have_one_name_and_others_another() -> None:
    assert name_hardware([CPU], 2) == name_hardware([CPU], 2)
    assert (
        len({name_hardware([CPU], 2), name_hardware([CPU], 4), name_hardware([CPU, GPU], 2)}) == 3
    )


def test_without_a_drivers_file_the_cpu_is_all_that_there_is(monkeypatch, tmp_path):
    monkeypatch.setattr(system.sys, "platform", "linux")
    monkeypatch.setattr(system, "ACCELERATOR_FILES", (str(tmp_path / "nvidiactl"),))
    assert not system.may_have_accelerator()
    (tmp_path / "nvidiactl").touch()
    assert system.may_have_accelerator()
    monkeypatch.setattr(system.sys, "platform", "darwin")
    (tmp_path / "nvidiactl").unlink()
    assert system.may_have_accelerator()
