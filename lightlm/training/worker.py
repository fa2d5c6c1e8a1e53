"""The worker: a child process that imports torch once and then runs one job after another.

A job arrives as a JSON line on standard input; events and one result leave on standard output. It
ends when its input ends, so it never outlives the parent: training stops at its next step and
saves, within ORPHAN_SECONDS; any other job, and torch's import, stop at once. After a stop message,
SIGTERM or SIGINT the step in progress ends and what was reached is saved.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from lightlm.child_process import Answers, Message, leave
from lightlm.errors import LightLMError
from lightlm.training.heartbeat import Heartbeat

LOCK = ".worker.lock"
"""Name of the lock in the run's folder that training holds."""

ORPHAN_SECONDS = 8.0
"""Seconds that training gets after its parent's death to save; then the process ends."""

IMPORT = "import"
"""What runs before the first job: torch's import, 2 s, and 7 s in a crowd."""

Emit = Callable[[Message], None]


class Stop(threading.Event):
    """Whether the job is asked to end. A job asks before each step, which is a heartbeat."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        super().__init__()
        self._heartbeat = heartbeat

    def is_set(self) -> bool:
        """Return whether the job is asked to end."""
        self._heartbeat.step()
        return super().is_set()


Job = Callable[[Message, Emit, Stop], Message]


def describe_devices(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Return the devices that torch sees here."""
    from lightlm.training.device import describe_devices

    return {"devices": [device.model_dump() for device in describe_devices()]}


def time_steps(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Return a StepTiming of one configuration."""
    from lightlm.model.config import ModelConfig
    from lightlm.training.config import TrainerConfig
    from lightlm.training.timing import time_steps

    model = ModelConfig.model_validate(arguments["model"])
    trainer = TrainerConfig.model_validate(arguments["trainer"])
    return time_steps(model, trainer, arguments["max_seconds"]).model_dump()


def time_step_parts(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Return a StepTiming of one configuration, extrapolated from parts of a step."""
    from lightlm.model.config import ModelConfig
    from lightlm.training.config import TrainerConfig
    from lightlm.training.step_parts import time_step_parts

    model = ModelConfig.model_validate(arguments["model"])
    trainer = TrainerConfig.model_validate(arguments["trainer"])
    timing = time_step_parts(model, trainer, arguments["tokens"], arguments["max_seconds"])
    return timing.model_dump()


def measure_matrix_rates(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Return the rate of matrix products in each of `dtypes`, in floating-point operations a
    second.
    """
    from lightlm.training.config import TrainerConfig
    from lightlm.training.timing import measure_matrix_rate

    trainer = TrainerConfig.model_validate(arguments["trainer"])
    trainers = {dtype: trainer.model_copy(update={"dtype": dtype}) for dtype in arguments["dtypes"]}
    return {
        dtype: measure_matrix_rate(one, arguments["max_seconds"]) for dtype, one in trainers.items()
    }


def make_ready(arguments: Message) -> None:
    """Do what a process does before its first training step, 1.3 s of imports, while the parent
    reads the text.
    """
    from lightlm.model.config import ModelConfig
    from lightlm.training.config import TrainerConfig
    from lightlm.training.timing import time_steps

    trainer = TrainerConfig.model_validate(arguments["trainer"]).model_copy(
        update={"dtype": arguments["dtypes"][-1]}
    )
    tiny = ModelConfig(
        vocab_size=512,
        num_layers=1,
        model_dim=8,
        num_heads=1,
        num_kv_heads=1,
        head_dim=8,
        ffn_dim=8,
        context_length=8,
    )

    with contextlib.suppress(RuntimeError):  # the job that it hinders reports it
        time_steps(tiny, trainer, max_seconds=0.0)


def train(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Run one training run; events as they happen; the TrainResult."""
    from lightlm.store.home import find_home
    from lightlm.store.lock import hold_lock
    from lightlm.training.distributed import open_ranks
    from lightlm.training.events import to_json
    from lightlm.training.run import TrainingRun, TrainRequest

    request = TrainRequest.model_validate(arguments)
    # A worker whose parent was killed may still be saving; two must not write one run.
    with hold_lock(request.run_folder / LOCK), open_ranks(request) as (request, ranks):
        run = TrainingRun(find_home(), request, should_stop=stop.is_set, ranks=ranks)
        return run.run(lambda event: emit(to_json(event))).model_dump(mode="json")


def evaluate(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Return the Evaluated of a Hugging Face folder on the shards' held-out text, by `deadline`."""
    from lightlm.data.shards import open_shards
    from lightlm.evaluation.score import DocumentScores, Evaluated
    from lightlm.evaluation.scoring import score_documents, select_together, summarize_documents
    from lightlm.model.hugging_face import load_model
    from lightlm.ngram.version import load_mixture
    from lightlm.store.commit import open_commit
    from lightlm.training.config import TrainerConfig
    from lightlm.training.device import prepare

    trainer = TrainerConfig.model_validate(arguments["trainer"])
    folder = open_commit(Path(arguments["folder"]), "model").folder
    model = load_model(folder, device=trainer.device, kernel=trainer.attention)
    prepare(model, trainer.model_copy(update={"compile": False}))
    deadline = arguments["deadline"]
    shards = open_shards(Path(arguments["shards_folder"]))
    nats, num_bytes = score_documents(
        model,
        shards,
        mixture=load_mixture(folder),
        max_bytes=arguments["max_bytes"],
        should_stop=lambda: stop.is_set() or time.monotonic() > deadline,
    )

    together = select_together(nats).tolist()
    documents = DocumentScores(nats=together, num_bytes=num_bytes.tolist())
    score = summarize_documents(shards, nats)
    return Evaluated(score=score, documents=documents).model_dump()


def score_version(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Return nats and bytes by held-out document of a subset, of a model with its own tokenizer;
    and its shape.

    Within `max_seconds`, or as many of the first documents as that allows.
    """
    from lightlm.data.subset import open_subset
    from lightlm.data.tokenization.tokenizer import load_tokenizer
    from lightlm.evaluation.score import bits_per_byte
    from lightlm.evaluation.scoring import NETWORK, score_texts, select_together
    from lightlm.model.hugging_face import load_model, read_config
    from lightlm.ngram.version import load_mixture
    from lightlm.store.commit import open_commit
    from lightlm.training.config import TrainerConfig
    from lightlm.training.device import prepare

    ends_at = time.monotonic() + arguments["max_seconds"]
    trainer = TrainerConfig.model_validate(arguments["trainer"])
    folder = open_commit(Path(arguments["folder"])).folder
    config = read_config(folder)
    is_short = trainer.device == "cpu" and config.context_length <= arguments["matmul_context"]
    model = prepare(
        load_model(folder, device=trainer.device, kernel="matmul" if is_short else "sdpa"), trainer
    )

    subset = open_subset(Path(arguments["subset_folder"]))
    documents = list(subset.read_documents("validation"))
    nats, num_bytes = score_texts(
        model,
        load_tokenizer(folder),
        documents,
        ends=subset.read_ends("validation"),
        mixture=load_mixture(folder),
        should_stop=lambda: stop.is_set() or time.monotonic() > ends_at,
    )

    alone = nats if nats.ndim == 1 else nats[:, NETWORK]
    return {
        "documents": {"nats": select_together(nats).tolist(), "num_bytes": num_bytes.tolist()},
        "network_bits_per_byte": bits_per_byte(float(alone.sum()), int(num_bytes.sum())),
        "is_whole": len(nats) == len(documents),
        "model": config.model_dump(),
    }


def probe_base(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Return the BaseProbe of a base's folder on a subset: its score untouched, and the seconds of
    training each of `trainers`, within about `max_seconds`.
    """
    from lightlm.data.subset import open_subset
    from lightlm.model.config import ModelConfig
    from lightlm.training.base_probe import probe_base
    from lightlm.training.config import TrainerConfig

    return probe_base(
        Path(arguments["folder"]),
        open_subset(Path(arguments["subset_folder"])),
        ModelConfig.model_validate(arguments["model"]),
        [TrainerConfig.model_validate(one) for one in arguments["trainers"]],
        arguments["max_seconds"],
        stop.is_set,
    ).model_dump()


def measure_memorization(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Return the Memorization of a model's folder: what it continues verbatim, and `samples`."""
    from lightlm.data.subset import open_subset
    from lightlm.store.commit import open_commit
    from lightlm.training.memorization import measure_memorization

    folder = open_commit(Path(arguments["folder"]), "model").folder
    subsets = [open_subset(Path(one)) for one in arguments["subset_folders"]]
    seconds = arguments["max_seconds"]
    return measure_memorization(folder, subsets, arguments["samples"], seconds).model_dump()


def score_general(arguments: Message, emit: Emit, stop: Stop) -> Message:
    """Return the bits per byte of a model's network on the small general text."""
    import numpy as np

    from lightlm.data.tokenization.tokenizer import load_tokenizer
    from lightlm.evaluation.general import GENERAL_TEXT
    from lightlm.evaluation.score import bits_per_byte
    from lightlm.evaluation.scoring import score_texts
    from lightlm.model.hugging_face import load_model

    folder = Path(arguments["folder"])
    documents = [document.encode() for document in GENERAL_TEXT]
    ends = np.ones(len(documents), dtype=np.bool_)
    nats, sizes = score_texts(load_model(folder), load_tokenizer(folder), documents, ends=ends)
    return {"bits_per_byte": bits_per_byte(float(nats.sum()), int(sizes.sum()))}


JOBS: dict[str, Job] = {
    job.__name__: job
    for job in (
        describe_devices,
        time_steps,
        time_step_parts,
        measure_matrix_rates,
        train,
        evaluate,
        score_version,
        probe_base,
        measure_memorization,
        score_general,
    )
}


AFTERWARDS: dict[str, Callable[[Message], None]] = {measure_matrix_rates.__name__: make_ready}
"""Work by job that is done after the job's answer, before the next job."""


def serve(emit: Emit) -> None:
    """Run jobs from standard input until it ends."""
    heartbeat = Heartbeat(emit)
    stop = Stop(heartbeat)
    if "LOCAL_RANK" not in os.environ:  # an agent's SIGTERM ends a rank that waits for a dead one
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    jobs: queue.Queue[Message | None] = queue.Queue()
    running = [IMPORT]
    threading.Thread(target=_read_jobs, args=(jobs, stop, running), daemon=True).start()
    heartbeat.start()
    import torch  # the long import, while the parent goes on

    running.clear()
    emit({"ready": torch.__version__})
    while (job := jobs.get()) is not None:
        running.append(job["job"])
        heartbeat.begin()
        try:
            emit({"result": JOBS[job["job"]](job["arguments"], emit, stop)})
            if job["job"] in AFTERWARDS:
                AFTERWARDS[job["job"]](job["arguments"])
        except Exception as error:
            # Sent to the parent, which distinguishes bugs from deaths.
            if _is_device_lost(error):
                raise
            emit({"error": describe_error(error)})
        finally:
            heartbeat.end()
            running.clear()


def describe_error(error: Exception) -> dict[str, str]:
    """Return an error as the parent gets it; the traceback of a bug goes to the log."""
    if isinstance(error, LightLMError):
        # The class that the parent knows: some rooms have finer ones of their own.
        known = next(
            kind for kind in type(error).__mro__ if kind.__module__ == LightLMError.__module__
        )
        return {"kind": known.__name__, "message": str(error)}

    from lightlm.model.memory import is_out_of_memory

    if is_out_of_memory(error):
        text = (
            f"memory does not hold the model ({error}); give a smaller model.model_dim or "
            "model.context_length"
        )
        return {"kind": "WorkerError", "message": text}

    traceback.print_exception(error)
    sys.stderr.flush()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "kind": "WorkerBug",
        "message": f"{type(error).__name__}: {error} (line {frame.lineno} of "
        f"{Path(frame.filename).name})",
    }


def _is_device_lost(error: Exception) -> bool:
    """Return whether a GPU's context is broken: only a new process can go on."""
    return "CUDA error" in str(error) and "out of memory" not in str(error)


def _read_jobs(jobs: "queue.Queue[Message | None]", stop: Stop, running: list[str]) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "stop" in message:
            stop.set()
        else:
            jobs.put(message)
    stop.set()  # the parent is gone or done: training ends at its next step
    jobs.put(None)
    if "train" in running:
        time.sleep(ORPHAN_SECONDS)
    if running:
        os._exit(0)


def main() -> None:
    """Serve jobs until the parent ends; what libraries print goes to standard error."""
    serve(Answers().send)
    leave()


if __name__ == "__main__":
    main()
