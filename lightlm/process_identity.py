"""Which process a number means: once it has ended, another one may have its number.

A start by the wall clock does not tell: psutil takes it from the boot's time, which moves whenever
the clock is set, so that a machine that wakes up or gets its time late would lose what it started.
"""

import os
import sys
import time
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
STATE, START = 0, 19
"""Fields of /proc/PID/stat behind the name (man proc_pid_stat: 3 and 22)."""


def identify_process(pid: int) -> str | None:
    """Return what no other process ever has; None where none of this number runs.

    A zombie does not run. On Linux it is the boot and the ticks from it to the process's start.
    """
    if sys.platform == "linux":
        try:
            state, started = _read_stat(pid)
        except OSError:
            return None
        return None if state in "ZX" else f"{_read_boot()}:{started}"

    import psutil

    try:
        process = psutil.Process(pid)
        is_over = process.status() == psutil.STATUS_ZOMBIE
        return None if is_over else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def find_own_age() -> float:
    """Return the seconds since this process began."""
    if sys.platform == "linux":
        # psutil counts from the boot's time, which the kernel gives in whole seconds: 0.8 s of each
        # run's budget had never passed.
        started = int(_read_stat(os.getpid())[1]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)

    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())


def describe_own_process() -> str:
    """Return this process's number and identity, for a file that names who holds something."""
    return describe_process(os.getpid())


def describe_process(pid: int) -> str:
    """Return a process's number and identity; the number alone where none of this number runs."""
    return f"{pid} {identify_process(pid) or ''}".strip()


def _read_stat(pid: int) -> tuple[str, str]:
    """Return a process's state, and the ticks from the boot to its start (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return fields[STATE], fields[START]


def _read_boot() -> str:
    """Return the boot's id; "" where a sandbox hides it."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""
