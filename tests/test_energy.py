"""Energy by the machine's counters: summed, and no number at all where a part is missing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.energy import Counter, Energy, EnergyMeter, find_counters, find_rapl


def write_zone(folder: Path, zone: str, name: str, microjoules: int, span: int = 10**9) -> Path:
    path = folder / zone
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{span}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


def make_meter(
    folder: Path, before: dict[str, float] | None = None
) -> tuple[EnergyMeter, list[float]]:
    now = [100.0]
    meter = EnergyMeter(before, lambda: list(find_rapl(folder)), lambda: now[0])
    meter.begin()
    return meter, now


def test_packages_and_their_memory_are_summed_and_what_others_contain_is_not(
    tmp_path: Path,
) -> None:
    files = [
        write_zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000),
        write_zone(tmp_path, "intel-rapl:1", "package-1", 7_000_000),
        write_zone(tmp_path, "intel-rapl:0:1", "dram", 1_000_000),
        write_zone(tmp_path, "intel-rapl:0:0", "core", 2_000_000),
        write_zone(tmp_path, "intel-rapl:2", "psys", 9_000_000),
        write_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000),
    ]
    meter, now = make_meter(tmp_path)
    for file in files:
        file.write_text(str(int(file.read_text()) + 3_000_000))
    now[0] += 1
    meter.sample()
    assert meter.joules == {"memory": 3.0, "processor": 6.0}


def test_a_counter_that_goes_round_goes_on_and_one_that_was_set_back_has_no_number(
    tmp_path: Path,
) -> None:
    file = write_zone(tmp_path, "intel-rapl:0", "package-0", 999_000_000)
    meter, now = make_meter(tmp_path)
    file.write_text("2000000")  # of 1,000 J
    now[0] += 1
    meter.sample()
    assert meter.joules == {"processor": pytest.approx(3.0)}

    write_zone(tmp_path, "intel-rapl:0", "package-0", 900_000_000_000, span=10**12)
    meter, now = make_meter(tmp_path)
    file.write_text("0")
    now[0] += 1
    meter.sample()
    assert meter.joules == {}


def test_a_counter_that_cannot_be_read_any_more_takes_its_source_along(tmp_path: Path) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    second = write_zone(tmp_path, "intel-rapl:1", "package-1", 1)
    write_zone(tmp_path, "intel-rapl:0:1", "dram", 1)
    meter, now = make_meter(tmp_path)
    second.unlink()
    now[0] += 1
    meter.sample()
    assert meter.joules == {"memory": 0.0}


def test_a_continued_run_adds_to_what_was_counted_and_only_to_that(tmp_path: Path) -> None:
    package = write_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    write_zone(tmp_path, "intel-rapl:0:1", "dram", 0)
    meter, now = make_meter(tmp_path, before={"processor": 10.0})
    package.write_text("4000000")
    now[0] += 1
    meter.sample()
    assert meter.joules == {"processor": 14.0}
    assert make_meter(tmp_path, before={})[0].joules == {}


def fail() -> float:
    raise OSError("a driver's own error")


@pytest.mark.parametrize("read", [fail, lambda: 5.0])
def test_a_meter_runs_by_itself_and_a_driver_that_fails_costs_its_number_alone(
    read: Callable[[], float],
) -> None:
    with EnergyMeter(find=lambda: [Counter("GPU", read)]) as meter:
        pass
    assert meter.joules == ({} if read is fail else {"GPU": 0.0})


def test_nothing_is_made_up_where_nothing_can_be_read(tmp_path: Path) -> None:
    assert list(find_rapl(tmp_path / "none")) == []
    assert (Energy().list_metrics(), Energy().format()) == ({}, "")
    assert Energy({}, 400.0).grams_co2 is None
    assert Energy({"GPU": 3.6e6}).grams_co2 is None
    for counter in find_counters():
        assert counter.source in ("processor", "memory", "GPU")


def test_co2_is_said_with_the_intensity_that_a_person_named() -> None:
    energy = Energy({"processor": 1.8e6, "GPU": 1.8e6}, 400.0)
    assert energy.list_metrics() == {
        "energy/processor_joules": 1.8e6,
        "energy/gpu_joules": 1.8e6,
        "energy/joules": 3.6e6,
        "energy/grams_co2": 400.0,
    }
    assert energy.format() == (
        "3.6 MJ by this machine's counters (processor 1.8 MJ, GPU 1.8 MJ); 400 g of CO2 at 400 g "
        "per kWh"
    )
