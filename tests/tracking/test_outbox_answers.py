"""Tests of the parent's side of shipping: what it makes of the process's answers, its silence and
its death.

The process is a real one with a pipe; what it says is written here, so that no test waits for
MLflow.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.child_process import python_command
from lightlm.store.home import find_home
from lightlm.tracking import outbox as outbox_module
from lightlm.tracking.outbox import LOG, ChampionAnswer, Outbox, Shipment
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import ModelVersion

VERSION = {
    "name": "lightlm", "version": "7", "run_id": "f00d", "aliases": ["champion"], "tags": {"dataset": "stories"},
    "created_at": "2026-11-25T12:00:00Z",
}  # fmt: skip
TOLD = ModelVersion.model_validate(VERSION)
HOURS = 36_000.0
ASKED = {"model_name": "lightlm", "champion of lightlm": True}

UNTIL_CLOSED = "sys.stdin.read()"
FOREVER = "time.sleep(36_000)"

Speak = Callable[..., Outbox]


def say(*answers: object) -> str:
    """Return Python that says each answer on a line, all at once."""
    return f"print({chr(10).join(json.dumps(answer) for answer in answers)!r}, flush=True)"


@pytest.fixture
def speak(tmp_path: Path, request: pytest.FixtureRequest) -> Speak:
    def start(*lines: str, num_records: int = 3) -> Outbox:
        recorder = Recorder(tmp_path)
        for index in range(num_records):
            recorder.log_metrics({}, index)
        recorder.close()
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", "\n".join(["import os, sys, time", *lines])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)
        return Outbox(find_home(), tmp_path, process)

    return start


def test_the_version_is_what_the_process_told_however_often_it_is_asked(speak: Speak) -> None:
    outbox = speak(say({"run_id": "f00d"}), say({"version": VERSION}), FOREVER)
    assert outbox.wait_for_version(HOURS) == TOLD
    assert outbox.wait_for_version(HOURS) == TOLD


def test_a_version_that_will_never_come_is_not_waited_for(speak: Speak) -> None:
    assert speak(say({"version": None}), FOREVER).wait_for_version(HOURS) is None


def test_a_process_that_ended_is_not_waited_for(speak: Speak) -> None:
    outbox = speak(say({"run_id": "f00d"}))
    assert outbox.wait_for_version(HOURS) is None
    assert outbox.wait_for_version(HOURS) is None
    assert outbox.wait_for_champion(["lightlm"], HOURS).version is None


def test_silence_is_waited_for_as_long_as_was_said(speak: Speak) -> None:
    outbox = speak(FOREVER)
    assert outbox.wait_for_version(0.05) is None
    assert outbox.trouble is None


def test_a_server_that_never_answered_is_worth_no_further_wait(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert not speak(FOREVER).is_answering
    answered = speak(say({"trouble": None}), say({"version": VERSION}), FOREVER)
    assert answered.wait_for_version(HOURS) == TOLD
    assert answered.is_answering


def test_a_database_of_this_home_is_waited_for_until_a_wait_was_in_vain(speak: Speak) -> None:
    outbox = speak(FOREVER)
    assert outbox.is_answering
    assert outbox.wait_for_version(0.05) is None
    assert not outbox.is_answering


def test_trouble_is_kept_and_shortens_the_wait(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "TROUBLE_SECONDS", 0.1)
    outbox = speak(say({"trouble": "no answer"}), FOREVER)
    assert outbox.wait_for_version(HOURS) is None
    assert outbox.trouble == "no answer"


def test_trouble_that_is_over_gives_the_wait_back(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "TROUBLE_SECONDS", 0.2)
    over = say({"trouble": "no answer"}, {"trouble": None})
    outbox = speak(
        over, "time.sleep(0.3)", over, "time.sleep(0.3)", say({"version": VERSION}), FOREVER
    )
    assert outbox.wait_for_version(HOURS) == TOLD
    assert outbox.trouble is None


def test_a_version_that_comes_while_trouble_lasts_is_taken(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "TROUBLE_SECONDS", HOURS)
    outbox = speak(say({"trouble": "slow"}), "time.sleep(0.1)", say({"version": VERSION}), FOREVER)
    assert outbox.wait_for_version(HOURS) == TOLD


def test_a_wait_shorter_than_the_trouble_ends_as_said(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "TROUBLE_SECONDS", HOURS)
    assert speak(say({"trouble": "slow"}), FOREVER).wait_for_version(0.3) is None


def test_a_line_that_death_tore_costs_itself_alone(speak: Speak) -> None:
    outbox = speak("print('{\"versi', flush=True)", say({"version": VERSION}), FOREVER)
    assert outbox.wait_for_version(HOURS) == TOLD


def test_the_champion_is_what_the_process_told(speak: Speak) -> None:
    told = {"champion": VERSION, "champion_error": None, **ASKED}
    outbox = speak(say({"run_id": "f00d"}), say(told), FOREVER)
    assert outbox.wait_for_champion(["lightlm"], HOURS) == ChampionAnswer(TOLD, None, "lightlm")
    assert outbox.wait_for_champion(["lightlm"], HOURS) == ChampionAnswer(TOLD, None, "lightlm")


def test_there_may_be_no_champion_or_a_damaged_one(speak: Speak) -> None:
    told = say({"champion": None, "champion_error": None, **ASKED})
    assert speak(told, FOREVER).wait_for_champion(["lightlm"], HOURS) == ChampionAnswer(
        None, None, "lightlm"
    )
    told = say({"champion": VERSION, "champion_error": "damaged", **ASKED})
    assert speak(told, FOREVER).wait_for_champion(["lightlm"], HOURS) == ChampionAnswer(
        TOLD, "damaged", "lightlm"
    )


def test_a_champion_that_is_not_told_of_in_time_is_said(speak: Speak) -> None:
    answer = speak(FOREVER).wait_for_champion(["lightlm"], 0.1)
    assert answer == ChampionAnswer(
        None, "MLflow did not say within 0 s which version is champion", "lightlm"
    )


def test_closing_hears_the_last_word(speak: Speak) -> None:
    done = {"done": {"num_unsent": 2, "error": "refused"}}
    outbox = speak(UNTIL_CLOSED, say({"run_id": "f00d"}), say(done))
    assert outbox.close(HOURS) == Shipment("f00d", 2, "refused")
    assert outbox.close(HOURS) == Shipment("f00d", 2, "refused"), "closing twice is closing once"
    assert outbox._process.returncode == 0, "it ended by itself"


def test_a_run_that_mlflow_never_saw_has_no_id(speak: Speak) -> None:
    assert speak(say({"done": {"num_unsent": 3, "error": "away"}})).close(HOURS) == Shipment(
        None, 3, "away"
    )


def test_closing_after_a_death_counts_what_was_not_sent(speak: Speak, tmp_path: Path) -> None:
    shipment = speak(say({"run_id": "f00d"}), num_records=5).close(HOURS)
    why = "the process that sends to MLflow was killed or ended early"
    assert shipment == Shipment("f00d", 5, f"{why}; see {tmp_path / LOG}")


def test_a_process_that_does_not_end_in_time_is_killed_and_the_rest_counted(
    speak: Speak, tmp_path: Path
) -> None:
    outbox = speak(say({"run_id": "f00d"}), FOREVER, num_records=4)
    assert "MLflow's database was not done in the 0.2 s that were left: its disk is slow" in str(
        outbox.close(0.25).error
    )
    assert outbox._process.returncode is not None, "killed, and no zombie either"
    assert outbox.close(0.25).num_unsent == 4


def test_closing_says_the_trouble_and_waits_no_longer_than_it_allows(
    speak: Speak, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outbox_module, "TROUBLE_SECONDS", 0.1)
    shipment = speak(say({"trouble": "no answer"}), FOREVER).close(HOURS)
    assert shipment == Shipment(None, 3, f"MLflow refused: no answer; see {tmp_path / LOG}")


def test_a_process_that_has_said_its_last_word_and_stays_is_killed(speak: Speak) -> None:
    outbox = speak(say({"done": {"num_unsent": 0, "error": None}}), "os.close(1)", FOREVER)
    assert outbox.close(HOURS) == Shipment(None, 0, None)
    assert outbox._process.returncode != 0


@pytest.fixture
def speak_in_turn(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Speak:
    """Give an outbox whose process is followed by those of the next scripts, one after
    each death.
    """
    monkeypatch.setattr(outbox_module, "RESTART_SECONDS", 0.01)

    def start(*scripts: str) -> Outbox:
        left = iter(scripts)

        def spawn() -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-S", "-c", f"import sys, time\n{next(left)}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            request.addfinalizer(process.wait)
            request.addfinalizer(process.kill)
            return process

        outbox = Outbox(find_home(), tmp_path, spawn(), spawn)
        request.addfinalizer(outbox._closing.set)
        return outbox

    return start


def test_a_process_that_dies_is_started_again_and_its_successor_is_heard(
    speak_in_turn: Speak,
) -> None:
    outbox = speak_in_turn(
        say({"trouble": "slow"}), say({"run_id": "f00d"}), f"{say({'version': VERSION})}\n{FOREVER}"
    )
    assert outbox.wait_for_version(HOURS) == TOLD
    assert outbox.num_deaths == 2
    assert outbox.is_answering, "the trouble was the dead one's"


def test_a_process_that_dies_again_and_again_is_given_up_and_that_is_said(
    speak_in_turn: Speak,
) -> None:
    outbox = speak_in_turn(*["sys.exit(1)"] * (outbox_module.MAX_RESTARTS + 1))
    assert outbox.wait_for_version(HOURS) is None
    assert not outbox.is_answering
    assert "was killed or ended early, 4 times" in outbox.explain_delay(1.0)
    assert "was killed or ended early, 4 times" in str(outbox.close(HOURS).error)


def test_a_process_that_has_said_its_last_word_has_no_successor(speak_in_turn: Speak) -> None:
    outbox = speak_in_turn(say({"done": {"num_unsent": 0, "error": None}}))
    assert outbox.close(HOURS) == Shipment(None, 0, None)
    assert outbox.num_deaths == 0


def test_a_process_that_dies_when_it_is_closed_has_no_successor(speak_in_turn: Speak) -> None:
    outbox = speak_in_turn("sys.stdin.read(); sys.exit(1)")
    assert "ended early" in str(outbox.close(HOURS).error)
    assert outbox.num_deaths == 1


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        ("API request to http://x failed with exception ConnectionError", "MLflow is out of reach"),
        ("API request to /create failed with error code 500 != 200", "MLflow refused"),
    ],
)
def test_a_server_that_is_away_and_one_that_says_no_are_told_apart(
    speak: Speak, trouble: str, cause: str
) -> None:
    outbox = speak(say({"trouble": trouble}), FOREVER)
    outbox.wait_for_version(1.0)
    assert outbox.explain_delay(1.0).startswith(cause)


def test_the_silence_of_a_server_is_not_blamed_on_this_disk(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    outbox = speak(FOREVER)
    assert outbox.explain_delay(1.5).startswith("MLflow did not answer in the 1.5 s")


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="reads how a process was started from /proc"
)
def test_the_process_is_its_own_session_and_writes_its_complaints_to_the_log(
    tmp_path: Path,
) -> None:
    (tmp_path / LOG).write_text("earlier\n")
    outbox = Outbox.start(find_home(), tmp_path)
    pid = outbox._process.pid
    pipes = (outbox._process.stdin, outbox._process.stdout)
    while not (line := Path(f"/proc/{pid}/cmdline").read_bytes()):
        time.sleep(0.01)  # empty while the new program takes the old one's place

    arguments = line.split(b"\0")[:-1]
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    log = Path(f"/proc/{pid}/fd/2").resolve()
    session = os.getsid(pid)
    outbox._process.kill()
    outbox._closing.set()  # no successor
    assert "ended early" in (outbox.close(HOURS).error or "")
    assert [os.fsdecode(one) for one in arguments] == python_command(
        "lightlm.tracking.outbox", str(tmp_path)
    )

    assert b"PYTHONSAFEPATH=1" in environment
    assert b"PYTHONWARNINGS=ignore" in environment
    assert os.fsencode(f"LIGHTLM_HOME={os.environ['LIGHTLM_HOME']}") in environment, (
        "and all else that we have"
    )
    assert log == (tmp_path / LOG).resolve()
    assert (tmp_path / LOG).read_text().startswith("earlier\n")
    assert [pipe and pipe.encoding for pipe in pipes] == ["utf-8", "utf-8"], (
        "whatever the locale's encoding"
    )

    assert session == pid, "Ctrl-C in the terminal does not reach it"
