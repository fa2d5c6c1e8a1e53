"""This machine: Python, accelerators, precision, cores, memory and disk, and checks of them.

Limits that containers set (affinity, cgroups) count. Each check has one line with a remedy.
"""

import hashlib
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel

from lightlm.params import Params

CGROUP = Path("/sys/fs/cgroup")
CPU_INFO = Path("/proc/cpuinfo")

FAST_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""CPU flags of x86 and Arm with bfloat16 products in hardware."""

ACCELERATOR_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""Device files of NVIDIA's driver, of Windows' in WSL, and of AMD's."""

OLDEST_PYTHON = (3, 11)


class Device(BaseModel, frozen=True):
    """Something that can train. `memory_bytes` in all; `compute_capability` of CUDA devices, as
    "9.0".
    """

    kind: Literal["cpu", "cuda", "mps"]
    name: str
    memory_bytes: int
    compute_capability: str | None = None
    supports_bfloat16: bool
    supports_float16: bool = False
    """Whether float16 products are fast, as on CUDA devices from compute capability 7.0 on."""
    supports_flash_attention: bool


class Check(BaseModel, frozen=True):
    """One line of the system check; `fix` is the remedy if it does not pass."""

    name: str
    status: Literal["pass", "warn", "fail"]
    message: str
    fix: str | None = None


def passed(name: str, message: str) -> Check:
    """Return a finding that needs nothing."""
    return Check(name=name, status="pass", message=message)


def warn(name: str, message: str, fix: str) -> Check:
    """Return a finding that costs something, but keeps nothing from working."""
    return Check(name=name, status="warn", message=message, fix=fix)


def fail(name: str, message: str, fix: str) -> Check:
    """Return a finding that keeps LightLM from working."""
    return Check(name=name, status="fail", message=message, fix=fix)


class SystemReport(BaseModel, frozen=True):
    """The machine as this process may use it. Memory and disk in bytes."""

    python_version: str
    platform: str
    cpu_name: str
    num_cores: int
    memory_bytes: int
    available_memory_bytes: int
    free_disk_bytes: int
    devices: list[Device]
    hardware_id: str
    checks: list[Check]

    @property
    def failed(self) -> list[Check]:
        """The checks that forbid a run."""
        return [check for check in self.checks if check.status == "fail"]


def check_system(params: Params, home: Path, devices: list[Device]) -> SystemReport:
    """Return the report of this machine for a run with `params` and its state under `home`."""
    num_cores = count_cores()
    memory = read_memory_limit()
    available = read_available_memory()
    disk = shutil.disk_usage(home).free
    checks = [
        _check_python(),
        _check_gpu(devices),
        _check_precision(devices),
        _check_cores(num_cores),
        _check_memory(available, params.system.min_available_memory_bytes),
        _check_disk(disk, params.system.min_free_disk_bytes, home),
        _check_tokenizer(params.tokenizer.source),
    ]

    return SystemReport(
        python_version=platform.python_version(),
        platform=platform.platform(),
        cpu_name=devices[0].name if devices else read_cpu_name(),
        num_cores=num_cores,
        memory_bytes=memory,
        available_memory_bytes=available,
        free_disk_bytes=disk,
        devices=devices,
        hardware_id=name_hardware(devices, num_cores),
        checks=checks,
    )


def describe_cpu() -> Device:
    """Return the CPU as a device to train on."""
    flags = read_cpu_flags()
    return Device(
        kind="cpu",
        name=read_cpu_name(),
        memory_bytes=read_memory_limit(),
        supports_bfloat16=any(flag in flags for flag in FAST_BFLOAT16_FLAGS),
        supports_flash_attention=True,
    )


def may_have_accelerator() -> bool:
    """Return whether torch may find more than a CPU here; only its slow import tells for sure.

    On Linux without a driver's device file there is none.
    """
    return sys.platform != "linux" or any(Path(path).exists() for path in ACCELERATOR_FILES)


def count_cores() -> int:
    """Return the cores that this process may use: its affinity, within its cgroup's quota; at least
    1.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = read_cpu_quota(CGROUP)
    return max(1, cores if quota is None else min(cores, int(quota)))


def read_cpu_quota(cgroup: Path) -> float | None:
    """Return the cores that cgroup v2 or v1 grants; None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return None
    if quota in ("max", "-1") or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def read_cgroup_memory(cgroup: Path) -> tuple[int | None, int]:
    """Return the memory limit of cgroup v2 or v1 (None without one) and what is in use of it, in
    bytes.
    """
    for limit_file, usage_file in (
        (cgroup / "memory.max", cgroup / "memory.current"),
        (cgroup / "memory" / "memory.limit_in_bytes", cgroup / "memory" / "memory.usage_in_bytes"),
    ):
        try:
            limit = limit_file.read_text(encoding="ascii").strip()
            usage = usage_file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        # cgroup v1 writes a number near 2^63 for "no limit".
        if limit.isdigit() and int(limit) < 1 << 60:
            return int(limit), int(usage)
        return None, 0

    return None, 0


def read_memory_limit() -> int:
    """Return the bytes of memory that this process could ever use."""
    limit, _ = read_cgroup_memory(CGROUP)
    total = psutil.virtual_memory().total
    return total if limit is None else min(limit, total)


def read_available_memory() -> int:
    """Return the bytes of memory that are free for this process now."""
    limit, usage = read_cgroup_memory(CGROUP)
    available = psutil.virtual_memory().available
    return available if limit is None else max(0, min(available, limit - usage))


def read_cpu_flags(cpu_info: Path = CPU_INFO) -> set[str]:
    """Return the CPU's feature flags; empty where the system does not list them."""
    return set(_read_fact(cpu_info, "flags", "Features").split())


def read_cpu_name(cpu_info: Path = CPU_INFO) -> str:
    """Return the CPU's name."""
    name = _read_fact(cpu_info, "model name")
    return name or platform.processor() or platform.machine() or "unknown CPU"


def name_hardware(devices: list[Device], num_cores: int) -> str:
    """Return a short name of the machine's kind: the same for equal machines, another where speed
    will differ.
    """
    parts = [f"{device.kind}:{device.name}:{device.memory_bytes >> 30}" for device in devices]
    text = "|".join([*parts, str(num_cores), platform.machine()])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_python() -> Check:
    version = platform.python_version()
    if sys.version_info[:2] < OLDEST_PYTHON:
        return fail("Python", version, "install Python 3.11 or newer")
    return passed("Python", version)


def _check_gpu(devices: list[Device]) -> Check:
    accelerators = [device for device in devices if device.kind != "cpu"]
    if not accelerators:
        return warn(
            "GPU",
            "none; training runs on the CPU",
            "nothing to do: the plan suits the CPU; with an NVIDIA card, check its driver with "
            "nvidia-smi",
        )

    described = []
    for device in accelerators:
        capability = (
            f", compute capability {device.compute_capability}" if device.compute_capability else ""
        )
        described.append(f"{device.name} ({device.memory_bytes / 1e9:.0f} GB{capability})")

    return passed("GPU", "; ".join(described))


def _check_precision(devices: list[Device]) -> Check:
    if any(device.supports_bfloat16 for device in devices):
        kinds = ", ".join(device.kind for device in devices if device.supports_bfloat16)
        return passed("bfloat16", f"in hardware on {kinds}")
    halves = [device.kind for device in devices if device.supports_float16]
    if halves:
        message = f"not in hardware; float16 is, on {', '.join(halves)}, and is used"
        return passed("bfloat16", message)
    return warn(
        "bfloat16",
        "not in hardware; float32 is used",
        "nothing to do: training is 1.5 to 4 times slower than with it",
    )


def _check_cores(num_cores: int) -> Check:
    if num_cores == 1:
        return warn(
            "CPU cores",
            "1; loading data and training share it",
            "give the process more cores, if there are any (taskset, the container's cpu limit)",
        )
    return passed("CPU cores", str(num_cores))


def _check_memory(available: int, wanted: int) -> Check:
    fix = "close other programs, or give system.min_available_memory_bytes a smaller value"
    return _compare("Memory", f"{available / 1e9:.1f} GB free", available, wanted, fix)


def _check_disk(free: int, wanted: int, home: Path) -> Check:
    fix = "free some space, or give another LIGHTLM_HOME"
    return _compare("Disk", f"{free / 1e9:.1f} GB free under {home}", free, wanted, fix)


def _compare(name: str, message: str, free: int, wanted: int, fix: str) -> Check:
    if free < wanted:
        return fail(name, f"{message}, wanted {wanted / 1e9:.1f} GB", fix)
    return passed(name, message)


def _check_tokenizer(source: str) -> Check:
    if source == "train":
        return passed("Tokenizer", "trained on the text")
    if Path(source).expanduser().exists():
        return passed("Tokenizer", source)
    return warn(
        "Tokenizer",
        f"{source}, from the Hub",
        "give a folder or a tokenizer.json where the Hub is out of reach",
    )


def _read_fact(cpu_info: Path, *names: str) -> str:
    """Return the first value under one of these names; "" where there is none."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    facts = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in facts if name.strip() in names), "")
