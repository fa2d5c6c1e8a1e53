"""A trainer that is alive and gets nowhere: noticed, killed with its stacks in the log, and
resumed.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from .test_run_signals import STOP_SECONDS, is_training, list_processes, start, wait_for
from .test_run_signals import text as text  # the fixture


def find_worker(home: Path) -> psutil.Process:
    """Return the worker of a home."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # others come and go meanwhile
            is_worker = "lightlm.training.worker" in process.cmdline()
            if is_worker and process.environ().get("LIGHTLM_HOME") == str(home):
                return process
    raise AssertionError("no worker")


@pytest.mark.timeout(600)
def test_a_trainer_that_is_stopped_is_killed_and_the_run_ends_with_its_version(
    tmp_path: Path, text: Path, tell: Callable[[str], None]
) -> None:
    home = tmp_path / "home"
    command = start(home, text)
    log = home / "command.log"
    assert wait_for(lambda: is_training(home)), log.read_text()
    hung = find_worker(home)
    hung.suspend()
    stopped_at = time.monotonic()
    assert wait_for(lambda: not hung.is_running() or hung.status() == psutil.STATUS_ZOMBIE), (
        "nobody noticed"
    )

    noticed = time.monotonic() - stopped_at
    assert command.wait(300) == 0, log.read_text()
    said = log.read_text()
    assert "gave no sign of life for" in said
    assert "lightlm version 1" in said
    (worker_log,) = home.glob("runs/*/worker.log")
    assert "most recent call first" in worker_log.read_text()
    assert wait_for(lambda: not list_processes(home), STOP_SECONDS), list_processes(home)
    (used,) = [line.strip() for line in said.splitlines() if " s used" in line]
    tell(
        f"SIGSTOP of the trainer: noticed and ended after {noticed:.1f} s; the run registered its "
        f"version, {used}"
    )
