"""The energy of this machine, in joules, by its own counters: RAPL's of processors, NVML's of GPUs.

What has no counter, or none that this process may read, has no number. The counters belong to the
machine: what else runs on it is counted, too.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows RAPL's counters; most systems let only root read them (CVE-2020-8694)."""

SAMPLE_SECONDS = 1.0
"""Seconds between two readings: the end of a run is missed by at most as much."""

MOST_WATTS = 20_000.0
"""Watts of one counter above which it has not gone round: it was set back, by a suspend."""

CLOSE_SECONDS = 1.0
"""Seconds that the last reading gets: a driver that hangs is not waited for."""

JOULES_PER_KWH = 3.6e6

KINDS = {"package": "processor", "dram": "memory"}
"""RAPL's domains that count, by the beginnings of their names; `core` is a part of a package,
`psys` contains all.
"""


@dataclass
class Counter:
    """One counter: `read` gives joules, and goes round at `span`; None where it never does."""

    source: str
    read: Callable[[], float]
    span: float | None = None
    last: float = 0.0


class EnergyMeter:
    """Joules by source since `start`, from a thread of its own; a context manager.

    `before` is what an earlier process of the same run has counted. A source counts only if it was
    read over the whole run: with a part of it missing, it has no number.
    """

    def __init__(
        self,
        before: Mapping[str, float] | None = None,
        find: "Callable[[], Sequence[Counter]] | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over from an earlier process if `before` is given, even if it counted nothing."""
        self._find = find or find_counters
        self._clock = clock
        self._before = before
        self._counters: Sequence[Counter] = ()
        self._joules: dict[str, float] = {}
        self._lost: set[str] = set()
        self._read_at = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Read a last time."""
        self.close()

    def close(self) -> None:
        """Read a last time and end; more than once does no harm."""
        self._is_over.set()
        self._thread.join(CLOSE_SECONDS)

    @property
    def joules(self) -> dict[str, float]:
        """Joules by source at the last reading."""
        return dict(self._joules)

    def begin(self) -> None:
        """Find the counters and read them a first time."""
        self._read_at = self._clock()
        counters = []
        for counter in self._find():
            try:
                counter.last = counter.read()
            except Exception:  # noqa: BLE001  (NVML raises its own; such a source has no number)
                self._lost.add(counter.source)
            else:
                counters.append(counter)
        before = self._before
        known = [one for one in counters if before is None or one.source in before]
        self._counters = [one for one in known if one.source not in self._lost]
        self._joules = {one.source: (before or {}).get(one.source, 0.0) for one in self._counters}

    def sample(self) -> None:
        """Read the counters once more."""
        now = self._clock()
        seconds = max(1e-3, now - self._read_at)
        self._read_at = now
        joules = dict(self._joules)
        for counter in self._counters:
            try:
                value = counter.read()
            except Exception:  # noqa: BLE001
                self._lost.add(counter.source)
                continue
            moved = value - counter.last
            if moved < 0 and counter.span is not None:
                moved += counter.span
            counter.last = value
            if not 0 <= moved <= MOST_WATTS * seconds:
                self._lost.add(counter.source)
            else:
                joules[counter.source] += moved
        self._counters = [one for one in self._counters if one.source not in self._lost]
        self._joules = {name: one for name, one in joules.items() if name not in self._lost}

    def _run(self) -> None:
        with suppress(Exception):  # whatever a driver does, the run goes on without a number
            self.begin()
            while self._counters and not self._is_over.wait(SAMPLE_SECONDS):
                self.sample()
            self.sample()


def find_counters() -> list[Counter]:
    """Return the counters of this machine that may be read."""
    return [*find_rapl(POWERCAP), *find_nvml()]


def find_rapl(folder: Path) -> Iterator[Counter]:
    """Yield RAPL's counters of packages and their memory."""
    for zone in sorted(folder.glob("intel-rapl:*")):
        with suppress(OSError, ValueError):
            name = (zone / "name").read_text().strip()
            kind = next((kind for begin, kind in KINDS.items() if name.startswith(begin)), None)
            if kind is not None:
                span = int((zone / "max_energy_range_uj").read_text()) / 1e6
                yield Counter(kind, RaplFile(zone / "energy_uj"), span)


@dataclass(frozen=True)
class RaplFile:
    """A counter's file, in microjoules."""

    path: Path

    def __call__(self) -> float:
        """Return its joules."""
        return int(self.path.read_text()) / 1e6


def find_nvml() -> Iterator[Counter]:
    """Yield the counters of NVIDIA GPUs; none without nvidia-ml-py (extra `gpu`) or a GPU."""
    try:
        import pynvml  # pyright: ignore[reportMissingImports]
    except ImportError:
        return
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return
    for index in range(count):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        # millijoules since the driver was loaded, from Volta on
        yield Counter(
            "GPU", lambda handle=handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        )


@dataclass(frozen=True)
class Energy:
    """What a run took, in joules by source, and grams of CO2 where the grid's are named."""

    joules: Mapping[str, float] = field(default_factory=dict)
    grams_co2_per_kwh: float | None = None

    @property
    def total(self) -> float:
        """Joules of all sources that were read."""
        return sum(self.joules.values())

    @property
    def grams_co2(self) -> float | None:
        """Grams of CO2; None where no energy was read, or no person named the grid's intensity."""
        if not self.joules or self.grams_co2_per_kwh is None:
            return None
        return self.total / JOULES_PER_KWH * self.grams_co2_per_kwh

    def list_metrics(self) -> dict[str, float]:
        """Return the metrics of a run; none where nothing was read."""
        metrics = {f"energy/{name.lower()}_joules": one for name, one in self.joules.items()}
        if self.joules:
            metrics["energy/joules"] = self.total
        if self.grams_co2 is not None:
            metrics["energy/grams_co2"] = self.grams_co2
        return metrics

    def format(self) -> str:
        """Return "12.3 kJ by this machine's counters (processor 11.2 kJ, memory 1.1 kJ)"; ""
        where nothing was read.
        """
        if not self.joules:
            return ""
        parts = ", ".join(f"{name} {format_joules(one)}" for name, one in self.joules.items())
        grams = self.grams_co2
        gas = (
            ""
            if grams is None
            else (f"; {grams:.3g} g of CO2 at {self.grams_co2_per_kwh:g} g per kWh")
        )
        return f"{format_joules(self.total)} by this machine's counters ({parts}){gas}"


def format_joules(joules: float) -> str:
    """Return "950 J", "12.3 kJ" or "4.56 MJ"."""
    for size, unit in ((1e6, "MJ"), (1e3, "kJ")):
        if joules >= size:
            return f"{joules / size:.3g} {unit}"
    return f"{joules:.3g} J"
