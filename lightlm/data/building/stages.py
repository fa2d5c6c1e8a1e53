"""The stages of a corpus, run by datatrove: signatures, near copies, tokens, in tasks that workers
share.

datatrove notes at the URL which tasks are done. So a task whose worker died is done again, and the
same command goes on where it ended, on this machine or on another.
"""

import contextlib
import io
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lightlm.data.building import tasks
from lightlm.data.building.job import Job
from lightlm.data.building.sketches import BUCKETS, HASHES, SEED, WORDS
from lightlm.data.corpus import Corpus, open_corpus
from lightlm.data.processes import Arrays, Work, Worker, serve
from lightlm.data.processes import Job as ChildJob
from lightlm.errors import DatasetError, ParameterError
from lightlm.store.lock import ignore

if TYPE_CHECKING:
    from datatrove.executor.base import PipelineExecutor  # pyright: ignore[reportMissingImports]

STAGES = ("read", "hold-out", "buckets", "clusters", "write", "finish")

RESTARTS = 5
"""Times that a worker is started again after it died; then its task is done in the command's own
process, whose error a person sees.
"""

READ_RECORDS = 8192
"""Records of a file that are read in one request: 300 kB. datatrove's default is five, with which
S3 is asked 1.4 billion times for the signatures of a terabyte.
"""

POLL_SECONDS = 5.0
"""Seconds between two looks at what other machines have done."""


class Machine(NamedTuple):
    """Which of several machines this is, from 0 on; each does every `of`-th task."""

    number: int
    of: int


ALONE = Machine(0, 1)


def build_corpus(
    job: Job,
    num_workers: int,
    machine: Machine = ALONE,
    report: Callable[[str], None] = ignore,
) -> Corpus:
    """Return the corpus of a job, made by `num_workers` processes here and those of other machines.

    Raises:
        DatasetError: a file cannot be read, or another corpus is there.
        ParameterError: datatrove is not installed.
        StoreError: the URL cannot be written.
    """
    check_datatrove()
    found = _find_corpus(job)
    if found is not None:
        report(f"{job.out} holds this corpus already")
        return found

    with tempfile.TemporaryDirectory(prefix="lightlm-task-") as scratch:
        job.work.put_json("job.json", job.model_dump(mode="json"), Path(scratch))

    child = ChildJob("lightlm.data.building.stages", start_tasks, (f"{job.work.url}/job.json",))
    with contextlib.ExitStack() as stack:
        idle = deque(
            stack.enter_context(Worker(child, restarts=RESTARTS)) for _ in range(num_workers)
        )
        pool = stack.enter_context(ThreadPoolExecutor(num_workers))
        for stage in list_stages(job):
            _run_stage(job, stage, machine, idle, pool, report)

    while (corpus := _find_corpus(job)) is None:
        time.sleep(POLL_SECONDS)
    if machine.number == 0:
        job.folder.remove(["work"])
    return corpus


def check_datatrove() -> None:
    """Refuse to begin without datatrove.

    Raises:
        ParameterError: with the command that installs it.
    """
    try:
        import datatrove  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ParameterError(
            "a corpus is made by datatrove, which is not installed; pip install 'lightlm[corpus]'"
        ) from None


def list_stages(job: Job) -> list[str]:
    """Return the stages of a job: without those that look for copies where these are kept."""
    is_dropped = job.dataset.duplicates == "drop"
    return [stage for stage in STAGES if is_dropped or stage not in ("buckets", "clusters")]


def count_tasks(job: Job, stage: str) -> int:
    """Return the number of a stage's tasks."""
    return {"read": len(job.tasks), "write": len(job.tasks), "buckets": BUCKETS}.get(stage, 1)


def open_executor(job: Job, stage: str, rank: int) -> "PipelineExecutor":
    """Return datatrove's executor of one task, which does it unless it is done."""
    from datatrove.executor.base import DistributedEnvVars, PipelineExecutor  # pyright: ignore[reportMissingImports]
    from datatrove.io import DataFolder  # pyright: ignore[reportMissingImports]
    from datatrove.pipeline.base import PipelineStep  # pyright: ignore[reportMissingImports]
    from datatrove.pipeline.dedup import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster  # pyright: ignore[reportMissingImports]
    from datatrove.utils.hashing import HashConfig  # pyright: ignore[reportMissingImports]

    filesystem, root = job.work.connect()

    def folder(name: str) -> DataFolder:
        return DataFolder(f"{root}/{name}", filesystem, auto_mkdir=False)

    def step() -> PipelineStep:
        if stage == "buckets":
            return MinhashDedupBuckets(
                folder("signatures"), folder("pairs"), config=config, lines_to_buffer=READ_RECORDS
            )
        if stage == "clusters":
            return MinhashDedupCluster(
                folder("pairs"), folder("gone"), config=config, lines_to_buffer=READ_RECORDS
            )
        return OwnStep()

    class OwnStep(PipelineStep):
        name = stage
        type = "LightLM"

        def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
            work = {
                "read": lambda: tasks.read_task(job, rank),
                "hold-out": lambda: tasks.hold_out(job),
                "write": lambda: tasks.write_task(job, rank),
                "finish": lambda: tasks.finish(job),
            }
            work[stage]()

    class TaskExecutor(PipelineExecutor):
        def __init__(self) -> None:
            super().__init__([step()], folder(f"done/{stage}"))

        def run(self) -> None:
            self._run_for_rank(rank, local_rank=1)

        @property
        def world_size(self) -> int:
            return count_tasks(job, stage)

        def get_distributed_env(self, node_rank: int = -1) -> DistributedEnvVars:
            return DistributedEnvVars(
                datatrove_node_ips="localhost",
                datatrove_cpus_per_task="1",
                datatrove_mem_per_cpu="-1",
                datatrove_gpus_on_node="-1",
                datatrove_executor="LIGHTLM",
            )

    config = MinhashConfig(
        WORDS, BUCKETS, HASHES, SEED, hash_config=HashConfig(precision=32, hash_fc="sha1")
    )
    return TaskExecutor()


def start_tasks(url: str) -> Work:
    """Return the function of a task, [stage, rank], of the job at a URL."""
    job = tasks.read_job(url)

    def run(request: Arrays) -> Arrays:
        stage, rank = (int(one) for one in request[0])
        # datatrove's log is next to what is done; standard error is the command's.
        with contextlib.redirect_stderr(io.StringIO()):
            open_executor(job, STAGES[stage], rank).run()
        return [request[0]]

    return run


def _run_stage(
    job: Job,
    stage: str,
    machine: Machine,
    idle: "deque[Worker]",
    pool: ThreadPoolExecutor,
    report: Callable[[str], None],
) -> None:
    """Do this machine's tasks of a stage, and wait for those of the others."""
    number = count_tasks(job, stage)
    executor = open_executor(job, stage, 0)
    own = [rank for rank in executor.get_incomplete_ranks() if rank % machine.of == machine.number]

    def work(rank: int) -> None:
        worker = idle.pop()  # as many threads as workers: one is always idle here
        try:
            worker.answer([np.array([STAGES.index(stage), rank])])
        finally:
            idle.append(worker)

    began = time.monotonic()
    for _ in pool.map(work, own):
        pass
    if own:
        report(f"{stage}: {len(own):,} of {number:,} tasks in {time.monotonic() - began:,.1f} s")

    is_told = False
    while _is_waiting(job, executor):
        if not is_told:
            report(f"{stage}: waiting for the tasks of other machines")
            is_told = True
        time.sleep(POLL_SECONDS)


def _is_waiting(job: Job, executor: "PipelineExecutor") -> bool:
    """Return whether another machine has tasks of a stage to do."""
    return bool(executor.get_incomplete_ranks()) and _find_corpus(job) is None


def _find_corpus(job: Job) -> Corpus | None:
    """Return the corpus of a job where it is there already.

    Raises:
        DatasetError: another one is.
    """
    if job.folder.find_size("manifest.json") is None:
        return None
    corpus = open_corpus(job.out)
    if corpus is not None and corpus.parts["shards"][0] != job.fingerprint:
        raise DatasetError(
            f"{job.out} holds a corpus of another text, or of other params; give another --out"
        )
    return corpus


if __name__ == "__main__":
    serve(start_tasks)
