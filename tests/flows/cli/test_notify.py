"""A word at the end: one argument, no shell, a limit, and never a change of the run's
own result.
"""

import sys
from pathlib import Path

import pytest

from lightlm.errors import ParameterError, TrainingError
from lightlm_flows.cli import notify as notifying
from lightlm_flows.cli.notify import Notifier


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told"


@pytest.fixture
def notifier(tmp_path: Path, told: Path) -> Notifier:
    """Return one whose command writes its arguments and standard input down."""
    script = tmp_path / "tell it.py"
    script.write_text(
        f"import sys; open({str(told)!r}, 'w').write(repr(sys.argv[1:]) + sys.stdin.read())"
    )
    return Notifier(f"{sys.executable} '{script}' word")


def test_the_sentence_is_one_argument_that_no_shell_reads(
    notifier: Notifier, told: Path, tmp_path: Path
) -> None:
    notifier.run(f"$(touch {tmp_path}/owned); `id` 'x' > y", {"status": "finished"})
    assert (
        told.read_text()
        == repr(["word", f"$(touch {tmp_path}/owned); `id` 'x' > y"]) + '{"status": "finished"}'
    )
    assert not (tmp_path / "owned").exists()


def test_a_failure_is_told_and_raised(notifier: Notifier, told: Path) -> None:
    with pytest.raises(TrainingError, match="diverged"), notifier.around():
        raise TrainingError("diverged")
    assert "training failed: diverged" in told.read_text()


def test_a_command_that_fails_or_hangs_is_said_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Notifier(f"{sys.executable} -c 'raise SystemExit(3)'").run("done", {})
    assert "ended with exit code 3" in capsys.readouterr().err
    monkeypatch.setattr(notifying, "LIMIT_SECONDS", 0.2)
    Notifier(f"{sys.executable} -c 'import time; time.sleep(30)'").run("done", {})
    assert "was ended" in capsys.readouterr().err
    Notifier(None).run("done", {})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["", "no-such-program-here x", "'open quote"])
def test_what_is_no_command_is_refused_before_anything_starts(command: str) -> None:
    with pytest.raises(ParameterError, match="--notify"):
        Notifier(command)
