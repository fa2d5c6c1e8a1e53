"""What every test has: a LIGHTLM_HOME of its own, and no way to a server or a Hub by accident.

Owns the order, too: side by side, files that take minutes are begun first, or one core would wait
for the other; and what shares a trained model stays together.
"""

import os
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

pytest_plugins = ["tests.command_line"]

# Tests that run side by side are a crowd, in which a short run does without Prefect.
os.environ["LIGHTLM_PREFECT"] = "always"

FIRST = ("stack", "packaging", "flows", "runs", "tracking", "training", "versions")
"""Folders with files that take a minute and more: begun late, they would keep one core waiting for
the other.
"""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; the rest keeps its order."""
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    items.sort(
        key=lambda item: min(
            (ranks[part] for part in item.path.parts if part in ranks), default=len(FIRST)
        )
    )


class TrainedTogether(LoadFileScheduling):
    """A file stays in one process, and so do all files that look at the home `trained`: with two
    processes, a second training costs more than an uneven share.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = super()._split_scope(nodeid)
        return "trained" if looks_at_trained(self.config.rootpath / path) else path


@cache
def looks_at_trained(path: Path) -> bool:
    return "trained: Trained" in path.read_text("utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    few = (config.getoption("numprocesses") or 0) <= 2
    is_by_file = config.getoption("dist") == "loadfile"
    return TrainedTogether(config, log) if few and is_by_file else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the stack test's transcript: processes that test side by side cannot show it as it is
    written.
    """
    passed = [
        report for report in terminalreporter.getreports("passed") if "/stack/" in report.nodeid
    ]
    told = [
        text
        for report in passed
        for name, text in report.sections
        if name.startswith("Captured stderr")
    ]

    if told:
        terminalreporter.section("docker-compose.yml's commands on PostgreSQL")
        terminalreporter.write("".join(told))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("LIGHTLM_HOME", str(folder))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder
