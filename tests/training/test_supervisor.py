import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import psutil
import pytest
import torch

from lightlm.errors import WorkerBug, WorkerError
from lightlm.model.hugging_face import load_model
from lightlm.store.home import find_home
from lightlm.training.checkpoint import list_checkpoints
from lightlm.training.messages import TrainResult
from lightlm.training.run import TrainingRun
from lightlm.training.supervisor import MAX_RESTARTS, Worker, describe_exit

PARENT = """
import sys, time
from pathlib import Path
from lightlm.training.supervisor import Worker
worker = Worker(Path(sys.argv[1]))
worker.call("describe_devices")
print("ready", flush=True)
time.sleep(600)
"""


def find_worker(parent: int | None = None) -> psutil.Process:
    """Return the one worker among a process's children."""
    for _ in range(100):  # a child that was only forked has its parent's command line for a moment
        children = psutil.Process(parent).children()
        found = [
            child for child in children if "lightlm.training.worker" in " ".join(child.cmdline())
        ]
        if len(found) == 1:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"wanted one worker, found {len(found)}")


def wait_until_gone(process: psutil.Process) -> bool:
    """Wait for a process that need not be our child; one that only waits to be reaped is gone."""
    for _ in range(600):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def weights_of(folder):
    return dict(load_model(folder).named_parameters())


def is_same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def follow(worker, request, at_first_checkpoint):
    """Return the events of a run, and its result; call `at_first_checkpoint` once, with the
    worker's process.
    """
    events = []
    for record in worker.train(request.model_dump(mode="json")):
        events.append(record)
        if record.get("event") == "Checkpointed" and at_first_checkpoint is not None:
            at_first_checkpoint(find_worker())
            at_first_checkpoint = None
    return events[:-1], TrainResult.model_validate(events[-1]["result"])


def test_a_worker_that_dies_before_it_is_asked_has_a_successor_at_once(tmp_path):
    with Worker(tmp_path) as worker:
        process = worker._process
        assert process is not None
        process.kill()
        deadline = time.monotonic() + 30
        while worker._standby is None and time.monotonic() < deadline:
            time.sleep(0.01)
        successor = worker._standby
        assert successor is not None
        assert worker.call("describe_devices")["devices"]
        assert worker._process is successor

    assert successor.poll() is not None, "and it ends with its owner"


def test_a_worker_that_is_stopped_has_no_successor(tmp_path):
    worker = Worker(tmp_path)
    worker.start()
    worker.stop(0)
    time.sleep(0.2)
    assert worker._standby is None


def test_a_run_that_crashed_resumes_and_ends_with_the_weights_of_one_that_did_not(make_request):
    request = make_request(max_steps=300)
    with Worker(request.run_folder) as worker:
        events, result = follow(
            worker, request, lambda process: process.send_signal(signal.SIGABRT)
        )

    (restart,) = [record for record in events if record["event"] == "WorkerRestarted"]
    assert restart["restart"] == 1
    assert restart["step"] < 300
    assert "ended by signal 6" in restart["reason"]
    assert result.step == 300
    straight = TrainingRun(find_home(), make_request("straight", max_steps=300)).run(
        lambda event: None
    )
    assert is_same(weights_of(result.folder), weights_of(straight.folder))


@pytest.mark.faults
def test_a_memory_kill_halves_the_micro_batch_and_the_run_finishes(make_request):
    request = make_request(max_steps=200, micro_batch_size=4)
    with Worker(request.run_folder) as worker:
        events, result = follow(worker, request, lambda process: process.kill())
    (restart,) = [record for record in events if record["event"] == "WorkerRestarted"]
    assert "killed (signal 9; most often the system was out of memory)" in restart["reason"]
    assert (result.step, result.micro_batch_size) == (200, 2)
    assert not result.is_stopped


def test_an_interrupted_run_ends_at_a_step_with_a_checkpoint_and_a_model(make_request):
    request = make_request(max_steps=10**6, num_checkpoints=1)
    with Worker(request.run_folder) as worker:
        records = []
        for record in worker.train(request.model_dump(mode="json")):
            records.append(record)
            if len(records) == 1:
                worker.interrupt()

    result = TrainResult.model_validate(records[-1]["result"])
    assert result.is_stopped
    (checkpoint,) = list_checkpoints(request.run_folder / "checkpoints")
    assert checkpoint.name == f"step-{result.step:09d}"
    assert load_model(result.folder).config == request.model
    further = request.model_copy(
        update={"trainer": request.trainer.model_copy(update={"max_steps": result.step + 2})}
    )

    assert TrainingRun(find_home(), further).run(lambda event: None).step == result.step + 2


def test_stopped_in_the_middle_of_a_run_the_worker_is_gone(make_request):
    request = make_request(max_steps=10**6)
    worker = Worker(request.run_folder)
    with closing(worker.train(request.model_dump(mode="json"))) as events:
        next(events)
        process = find_worker()
        worker.stop()
    assert not process.is_running()
    assert list_checkpoints(request.run_folder / "checkpoints")
    worker.stop()


def test_a_worker_that_does_not_end_in_time_is_killed(tmp_path):
    worker = Worker(tmp_path)
    worker.start()
    process = find_worker()
    process.suspend()
    worker.stop(seconds=0.1)
    assert not process.is_running()


def test_when_the_parent_is_killed_the_worker_ends_by_itself(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        worker = find_worker(parent.pid)
    finally:
        parent.kill()
        parent.communicate()
    assert wait_until_gone(worker)


def test_a_worker_whose_input_ends_before_its_first_job_imports_no_further():
    """A Ctrl-C at a run's beginning waited for torch, in a crowd for seven seconds."""
    command = [sys.executable, "-P", "-m", "lightlm.training.worker"]
    job = json.dumps({"job": "describe_devices", "arguments": {}}) + "\n"
    ended = subprocess.run(command, input=job, capture_output=True, text=True, check=True)
    assert ended.stdout == ""


def test_a_worker_that_nobody_listens_to_any_more_saves_what_it_reached(make_request):
    request = make_request(max_steps=10**6, num_checkpoints=1)
    command = [sys.executable, "-m", "lightlm.training.worker"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(
        json.dumps({"job": "train", "arguments": request.model_dump(mode="json")}) + "\n"
    )

    worker.stdin.flush()
    assert any('"StepDone"' in line for line in worker.stdout)
    worker.stdout.close()
    time.sleep(1.0)  # it tells of several steps meanwhile, as one does whose steps are slow
    worker.stdin.close()
    worker.wait(60)
    assert list_checkpoints(request.run_folder / "checkpoints")


def test_a_worker_that_died_between_two_jobs_is_started_anew(tmp_path):
    with Worker(tmp_path) as worker:
        process = find_worker()
        process.kill()
        assert wait_until_gone(process)
        assert worker.call("describe_devices")["devices"][0]["kind"] == "cpu"


def test_a_bug_in_a_job_is_told_once_with_the_way_to_its_traceback(tmp_path):
    with Worker(tmp_path) as worker:
        with pytest.raises(
            WorkerBug, match=r"KeyError: 'no_such_job'.*traceback is in .*worker\.log"
        ):
            worker.call("no_such_job")
        assert "Traceback (most recent call last)" in worker.log.read_text()
        assert worker.call("describe_devices")["devices"][0]["kind"] == "cpu"


def test_a_bug_in_training_is_not_tried_again(make_request):
    request = make_request()
    values = request.model_dump(mode="json") | {
        "validation_tokens": -1,
        "trainer": {"batch_tokens": "many"},
    }
    events = []
    with Worker(request.run_folder) as worker, pytest.raises(WorkerBug, match="ValidationError"):
        for record in worker.train(values):
            events.append(record)
    assert events == []


def test_a_worker_that_never_gets_anywhere_is_given_up(make_request):
    request = make_request()
    # the interpreter itself does not start
    worker = Worker(request.run_folder, {"PYTHONHOME": "/nonexistent"})
    events = []
    with pytest.raises(WorkerError, match=f"gave up after {MAX_RESTARTS} restarts"):
        for record in worker.train(request.model_dump(mode="json")):
            events.append(record)
    assert [record["restart"] for record in events] == list(range(1, MAX_RESTARTS + 1))


def test_the_workers_environment_is_added_to_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_THE_PARENT", "1")
    with Worker(tmp_path, {"FOR_THE_WORKER": "2"}):
        environment = find_worker().environ()
    assert (environment["FROM_THE_PARENT"], environment["FOR_THE_WORKER"]) == ("1", "2")
    assert "FOR_THE_WORKER" not in os.environ


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "killed"),
        (-11, "ended by signal 11"),
        (1, "ended with exit code 1"),
        (0, "exit code 0"),
    ],
)
def test_how_a_process_ended_is_said(code, words):
    assert words in describe_exit(code)
