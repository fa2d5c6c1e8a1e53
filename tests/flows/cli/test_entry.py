"""The entry of the command line: Ctrl-C while it is imported."""

import subprocess
import sys

import pytest

INTERRUPTED = """
import os, signal, sys
import lightlm_flows.cli.entry
print("typer" in sys.modules, flush=True)
os.kill(os.getpid(), signal.SIGINT)
print("went on", flush=True)
"""

IGNORED = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{INTERRUPTED}"


@pytest.mark.parametrize(
    ("code", "out", "err", "status"),
    [
        (INTERRUPTED, "False\n", "lightlm: stopped\n", 130),
        (IGNORED, "False\nwent on\n", "", 0),
    ],
    ids=["ends the start in one line", "stays ignored where it was, as by nohup"],
)
def test_ctrl_c_before_the_command_line_is_imported(
    code: str, out: str, err: str, status: int
) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (out, err, status)
