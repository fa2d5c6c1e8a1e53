"""Signals: the first ends a command in order, the second at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel, model_serializer

from lightlm.errors import Interrupted, Terminated
from lightlm.runs.launch import Launch
from lightlm_flows.cli.signals import end_in_order

pexpect = pytest.importorskip("pexpect")

TWICE = """
import os, signal, sys
from lightlm.runs.launch import Launch
from lightlm_flows.cli.signals import end_in_order
with end_in_order(Launch()):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("in order", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        print("never", flush=True)
"""

HALF_WRITTEN = """
import os, signal, sys
from pathlib import Path
from lightlm.store.commit import commit_folder
from lightlm_flows.cli.main import app, main

def write(scratch):
    (scratch / "half").write_text("written")
    os.kill(os.getpid(), NUMBER)
    return {}

@app.command()
def fill() -> None:
    commit_folder(Path("out") / "new", "test", write)

NUMBER = getattr(signal, sys.argv.pop())
# whoever runs the tests may ignore them, as nohup does
signal.signal(NUMBER, signal.default_int_handler if NUMBER == signal.SIGINT else signal.SIG_DFL)
main()
"""

PANEL = """
import sys, termios, time
from lightlm_flows.cli.signals import end_in_order
from lightlm.budget.ledger import Ledger
from lightlm.console.progress import Progress
from lightlm.errors import Interrupted
from lightlm.runs.launch import Launch
progress = Progress(Ledger(1.0, clock=time.monotonic))
try:
    with progress, end_in_order(Launch(progress=progress)):
        try:
            progress.enter_stage("at work")
            time.sleep(120)
        except KeyboardInterrupt:
            progress.log("stopping")
            time.sleep(float(sys.argv[1]))
            raise
except Interrupted:
    print("echo", bool(termios.tcgetattr(0)[3] & termios.ECHO))
"""


@dataclass
class Asked(Launch):
    """A launch whose person answers by a function."""

    answer: Callable[[], bool] = lambda: True

    def confirm_stop(self) -> bool:
        """Return the answer."""
        return self.answer()


def open_panel(stopping_seconds: int) -> "pexpect.spawn[str]":
    """Return a shell at a terminal in which a panel is drawn, and which tells the terminal's
    settings after it.
    """
    words = f"trap : INT; {sys.executable} -c '{PANEL}' {stopping_seconds}; stty -a"
    environment = os.environ | {"TERM": "xterm-256color"}
    terminal = pexpect.spawn(
        "sh", ["-c", words], env=environment, encoding="utf-8", dimensions=(24, 80), timeout=60
    )
    terminal.expect("at work")
    assert terminal.waitnoecho(60), "what is typed would break the panel"
    return terminal


def test_at_a_panel_ctrl_c_asks_and_what_was_typed_before_is_no_answer() -> None:
    terminal = open_panel(0)
    terminal.sendline("y")
    for answer in ("n", "y"):
        # drawn again, the panel has its answer: a Ctrl-C before that would count as a yes
        for _ in range(2):
            terminal.expect("at work")
        assert terminal.waitnoecho(60)
        terminal.sendintr()
        terminal.expect("the same command goes on")
        terminal.sendline(answer)

    terminal.expect("echo True")
    terminal.expect(pexpect.EOF)


def test_a_second_signal_at_a_panel_leaves_the_terminal_as_it_was() -> None:
    terminal = open_panel(120)
    terminal.sendintr()
    terminal.expect("the same command goes on")
    terminal.sendline("y")
    terminal.expect("stopping")
    terminal.sendintr()
    terminal.expect(r"(?<!-)\becho\b")
    terminal.expect(pexpect.EOF)


HELD = """
import atexit, threading, time
from lightlm.budget import allowance
from lightlm_flows.cli import signals as stopping
allowance.EXIT_SECONDS = allowance.LEAST_EXIT_SECONDS = 0.2
atexit.register(lambda: time.sleep(600))
threading._register_atexit(lambda: time.sleep(600))
print("done")
stopping.end_process(75)
"""


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(signal.SIGINT, Interrupted, 130), (signal.SIGTERM, Terminated, 143)],
)
def test_a_signal_becomes_the_error_with_its_exit_code(
    number: int, kind: type[Interrupted], code: int
) -> None:
    handler = signal.getsignal(number)
    with (
        pytest.raises(kind, match="run the same command again to go on") as caught,
        end_in_order(Launch()),
    ):
        os.kill(os.getpid(), number)
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is handler


def test_what_training_says_of_its_end_is_kept() -> None:
    with pytest.raises(Terminated, match="stopped at step 5"), end_in_order(Launch()):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise Interrupted("stopped at step 5") from None


def test_another_error_goes_through() -> None:
    with pytest.raises(ZeroDivisionError), end_in_order(Launch()):
        raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_a_library_dropped_is_seen_at_the_next_look() -> None:
    class Dropping:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    launch = Launch()
    with pytest.raises(Interrupted, match="run the same command again"), end_in_order(launch):
        Dropping()  # Python drops what is raised where an object ends
        launch.check_stop()


def test_a_stop_of_which_a_library_made_another_error_is_still_a_stop() -> None:
    class Interrupting(BaseModel):
        @model_serializer
        def serialize(self) -> str:
            signal.raise_signal(signal.SIGINT)
            return ""

    with (
        pytest.raises(Interrupted, match=r"^stopped; run the same command again to go on$"),
        end_in_order(Launch()),
    ):
        Interrupting().model_dump()


def test_a_second_signal_ends_the_process_at_once() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "in order\n")


def test_a_ctrl_c_that_is_not_meant_changes_nothing() -> None:
    with end_in_order(Asked(answer=lambda: False)):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_that_is_meant_ends_in_order() -> None:
    with (
        pytest.raises(Interrupted, match="run the same command again"),
        end_in_order(Asked(answer=lambda: True)),
    ):
        signal.raise_signal(signal.SIGINT)


def test_another_ctrl_c_while_it_asks_is_a_yes() -> None:
    def ask() -> bool:
        signal.raise_signal(signal.SIGINT)
        return False

    with pytest.raises(Interrupted), end_in_order(Asked(answer=ask)):
        signal.raise_signal(signal.SIGINT)


def test_another_signal_asks_nobody() -> None:
    with pytest.raises(Terminated), end_in_order(Asked(answer=lambda: False)):
        signal.raise_signal(signal.SIGTERM)


def test_a_library_that_waits_for_a_server_does_not_hold_the_process_up() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HELD], capture_output=True, text=True, check=False, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (75, "done\n")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 143), ("SIGINT", 130)])
def test_a_command_that_a_signal_ends_removes_what_it_has_half_written(
    tmp_path: Path, name: str, code: int
) -> None:
    command = [sys.executable, "-P", "-c", HALF_WRITTEN, "fill", name]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (code, "lightlm: stopped\n")
    assert list((tmp_path / "out").iterdir()) == []


LEFT = """
import atexit
from lightlm_flows.cli import signals as stopping
class Torn:
    def __del__(self):
        print("torn apart", flush=True)
kept = Torn()
atexit.register(lambda: print("handled"))
stopping.end_process(75)
"""


def test_a_command_ends_behind_all_exit_handlers_without_taking_the_interpreter_apart() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LEFT], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (75, "handled\n")
