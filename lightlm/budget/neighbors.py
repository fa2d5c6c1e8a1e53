"""Other work on this machine: LightLM runs of this home, and by load everything else.

A plan makes room for it. The load is the CPU time that the machine spent and this run did not.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

NOTICED_CORES = 0.5
"""Cores in use by others below which they are ignored: a desktop's noise."""

CROWDED_FRACTION = 0.5
OWN_LOAD = 0.5
"""Fraction of the cores in use by others from which the system's load is theirs, and the part of
that load that this run's start adds.
"""

MOST_SLOWDOWN = 3.0
"""Largest slowdown that is planned for: beyond it nothing is left to plan."""


class Neighbors(NamedTuple):
    """Other live runs of this home, the cores that others keep busy, and the system's load."""

    num_runs: int = 0
    busy_cores: float = 0.0
    num_cores: int = 1
    load: float = 0.0
    """Processes that run or wait for a core, this run's among them, on average over a minute."""

    @property
    def slowdown(self) -> float:
        """Factor by which this run's own work takes longer; each run alone would use all cores."""
        crowd = self.busy_cores if self.busy_cores >= NOTICED_CORES else 0.0
        # busy cores say nothing of how many wait for them
        if crowd >= CROWDED_FRACTION * self.num_cores:
            crowd = max(crowd, self.load - OWN_LOAD)
        return min(MOST_SLOWDOWN, 1.0 + max(float(self.num_runs), crowd / max(1, self.num_cores)))

    @property
    def num_threads(self) -> int:
        """Threads that train: a busy core makes all threads wait at each barrier."""
        return max(1, round(self.num_cores / self.slowdown))

    def describe(self) -> str:
        """Return one line to show; empty if nothing else runs."""
        others = {0: "", 1: "another LightLM run of this home"}.get(
            self.num_runs, f"{self.num_runs} other LightLM runs of this home"
        )
        load = f"others keep {self.busy_cores:.1f} of {self.num_cores} cores busy"
        who = [others] if others else []
        if self.busy_cores >= NOTICED_CORES:
            who.append(load)

        if not who:
            return ""

        return (
            f"Not alone on this machine ({', '.join(who)}): planned for work that takes "
            f"{self.slowdown:.1f} times as long, on {self.num_threads} of {self.num_cores} cores"
        )


class CpuWatch:
    """The CPU time of the machine and of this process with its children, from now on."""

    def __init__(
        self,
        read_machine: Callable[[], float] | None = None,
        read_own: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_machine = read_machine or read_machine_seconds
        self._read_own = read_own or read_own_seconds
        self._clock = clock
        self._began = self._read()

    def _read(self) -> tuple[float, float, float]:
        return self._clock(), self._read_machine(), self._read_own()

    def busy_cores(self) -> float:
        """Return how many cores others kept busy since this watch began."""
        (then, machine_then, own_then), (now, machine, own) = self._began, self._read()
        if now <= then:
            return 0.0
        return max(0.0, (machine - machine_then - (own - own_then)) / (now - then))


def find_own_slowdown() -> float:
    """Return by which factor waiting for a core has slowed this process's main thread down so far.

    Where the system does not tell (it is Linux that does), the load of the last minute says it; 1.0
    where there is none.
    """
    try:
        ran, waited, _ = Path("/proc/self/schedstat").read_text().split()
        return 1.0 + int(waited) / max(1, int(ran))
    except (OSError, ValueError):
        pass

    try:
        return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    except (AttributeError, OSError):  # Windows has no load
        return 1.0


def read_machine_seconds() -> float:
    """Return the seconds that all cores of this machine were busy since it started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def read_own_seconds() -> float:
    """Return the CPU seconds of this process, of its children, and of theirs."""
    seconds = 0.0
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:  # it ended meanwhile, and its parent has its seconds
            continue
        seconds += times.user + times.system
        seconds += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return seconds
