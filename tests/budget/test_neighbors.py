import subprocess
import sys
from pathlib import Path

import pytest

from lightlm.budget.neighbors import MOST_SLOWDOWN, CpuWatch, Neighbors


def test_alone_nothing_changes_and_nothing_is_said() -> None:
    alone = Neighbors(num_runs=0, busy_cores=0.3, num_cores=2)
    assert (alone.slowdown, alone.num_threads, alone.describe()) == (1.0, 2, "")


def test_two_other_runs_on_two_cores_leave_one_thread_and_three_times_the_end() -> None:
    three = Neighbors(num_runs=2, busy_cores=1.6, num_cores=2)
    assert three.num_threads == 1
    said = three.describe()
    for words in ("2 other LightLM runs", "1.6 of 2 cores", "3.0 times as long", "on 1 of 2 cores"):
        assert words in said, said


def test_other_programs_count_by_the_cores_that_they_keep_busy() -> None:
    beside = Neighbors(num_runs=0, busy_cores=4.0, num_cores=8)
    assert (beside.slowdown, beside.num_threads) == (1.5, 5)
    assert "LightLM" not in beside.describe()


def test_where_the_cores_are_taken_the_load_says_how_many_wait_for_them() -> None:
    assert Neighbors(busy_cores=1.2, num_cores=2, load=4.5).slowdown == 3.0
    assert Neighbors(busy_cores=0.6, num_cores=4, load=4.5).slowdown == 1.15, (
        "it may be an earlier run's"
    )
    assert Neighbors(busy_cores=0.0, num_cores=2, load=9.0).slowdown == 1.0


def test_a_crowd_is_planned_for_up_to_a_bound() -> None:
    assert Neighbors(num_runs=50, num_cores=2).slowdown == MOST_SLOWDOWN


def test_what_others_keep_busy_is_the_machine_s_time_less_this_run_s() -> None:
    now = [100.0]
    machine = [5000.0]
    own = [3.0]
    watch = CpuWatch(lambda: machine[0], lambda: own[0], lambda: now[0])
    assert watch.busy_cores() == 0.0
    now[0] = 110.0
    machine[0] = 5018.0
    own[0] = 9.0
    assert watch.busy_cores() == pytest.approx(1.2)
    own[0] = 50.0  # children that ended are counted at once
    assert watch.busy_cores() == 0.0


def test_this_process_is_no_neighbor_of_itself() -> None:
    watch = CpuWatch()
    assert sum(number * number for number in range(2_000_000)) > 0
    assert watch.busy_cores() >= 0.0


SHARING = """
import os, time
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})
other = os.fork()
while other == 0:  # keeps the one core busy until it is killed
    pass
while time.process_time() < 0.3:
    pass
from lightlm.budget.neighbors import find_own_slowdown
print(find_own_slowdown())
os.kill(other, 9)
"""


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this system does not count waits"
)
def test_a_process_that_shares_its_core_knows_that_it_waited() -> None:
    said = subprocess.run(
        [sys.executable, "-c", SHARING], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(said.stdout) > 1.2, said
