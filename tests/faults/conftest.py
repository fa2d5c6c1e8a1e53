"""The fault harness: every test in this folder breaks something on purpose. `make test-faults` runs
it.

Each test is marked `faults`, which `make test` leaves out. What is drawn at random comes from one
seed, printed at the start; FAULTS_SEED=... draws the same again. What a test counted is printed at
the end, as a line a test.
"""

import os
import random
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
SEED = int(os.environ.get("FAULTS_SEED") or secrets.randbelow(2**31))
os.environ["FAULTS_SEED"] = str(SEED)  # processes that test side by side inherit it
FIGURE = "figure"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, before pytest leaves out what is not asked for."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.faults)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the seed and what the tests counted."""
    if config.option.markexpr.startswith("not faults"):
        return
    terminalreporter.section(f"seed={SEED} (FAULTS_SEED={SEED} draws the same faults again)")
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, line in report.user_properties if report.when == "call" else ():
            if name == FIGURE:
                terminalreporter.write_line(line)


@pytest.fixture
def seed() -> int:
    """Give the seed of this session."""
    return SEED


@pytest.fixture
def draw(request: pytest.FixtureRequest, seed: int) -> random.Random:
    """Give a generator of this test's own: the same seed draws the same in whatever order the tests
    run.
    """
    return random.Random(f"{seed}-{request.node.name}")


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Give the function that takes a line with figures for the end of the session."""

    def add(line: str) -> None:
        request.node.user_properties.append((FIGURE, f"{request.node.name}: {line}"))

    return add


@pytest.fixture
def mount_disk(tmp_path: Path) -> Callable[[int], tuple[Path, list[str]]]:
    """Give the function that returns a folder, and the words before a command for which a small
    disk is mounted there.

    The test is skipped where nobody may mount one.
    """
    disk = tmp_path / "disk"

    def mount(num_bytes: int) -> tuple[Path, list[str]]:
        disk.mkdir()
        # In a namespace of its own, so that nothing stays mounted however this ends.
        namespace = (
            ["unshare", "--mount"]
            if os.geteuid() == 0
            else ["unshare", "--map-root-user", "--mount"]
        )

        on_disk = [
            *namespace,
            "sh",
            "-c",
            f'mount -t tmpfs -o size={num_bytes} tmpfs "{disk}" && exec "$@"',
            "sh",
        ]

        tried = subprocess.run([*on_disk, "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"no disk of one's own can be mounted here: {tried.stderr.strip()}")

        return disk, on_disk

    return mount
