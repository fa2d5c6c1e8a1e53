"""The entry of the command line: Ctrl-C while it is imported, and streams that are closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEARD = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
IGNORED = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"

INTERRUPTED = """
import os, signal, sys
import lightlm_flows.cli.entry
print("typer" in sys.modules, flush=True)
os.kill(os.getpid(), signal.SIGINT)
print("went on", flush=True)
"""


@pytest.mark.parametrize(
    ("before", "out", "err", "status"),
    [
        (HEARD, "False\n", "lightlm: stopped\n", 130),
        (IGNORED, "False\nwent on\n", "", 0),
    ],
    ids=["ends the start in one line", "stays ignored where it was, as by nohup"],
)
def test_ctrl_c_before_the_command_line_is_imported(
    before: str, out: str, err: str, status: int
) -> None:
    command = [sys.executable, "-c", f"{before}{INTERRUPTED}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (out, err, status)


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX closes the streams")
@pytest.mark.parametrize(
    ("command", "closed", "code", "told"),
    [
        ("models --json", ">&-", 0, ""),
        ("models --json", "2>&-", 0, '{"models": [], "names": []}\n'),
        ("models --json", "<&- >&- 2>&-", 0, ""),
        ("generate", "<&-", 2, ""),
    ],
)
def test_a_stream_that_is_closed_takes_what_is_written_and_gives_nothing(
    home: Path, command: str, closed: str, code: int, told: str
) -> None:
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -P -m lightlm_flows.cli {command} {closed}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (code, told)
    assert "Traceback" not in ended.stderr
