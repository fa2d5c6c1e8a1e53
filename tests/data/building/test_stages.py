"""Tests of the stages: the same bytes whatever the workers, on S3 as in a folder, and after a kill."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from lightlm.data.building import job as jobs
from lightlm.data.building import stages
from lightlm.data.building.job import Job
from lightlm.data.building.stages import Machine, build_corpus, open_executor
from lightlm.data.corpus import Corpus, open_corpus
from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.data.tokenization.tokenizer import Tokenizer, prepare_tokenizer
from lightlm.errors import DatasetError
from lightlm.params import load_params
from lightlm.store.remote import RemoteFolder
from tests.data.corpora import make_job, write_tables

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install lightlm[corpus]")


def open_all(home: Path, url: str) -> tuple[TextSubset, Tokenizer, TokenShards]:
    params = load_params(dataset=url)
    subset = materialize_subset(home, params.dataset)
    tokenizer = prepare_tokenizer(home, params.tokenizer, subset, [1000])
    return subset, tokenizer, tokenize_subset(home, subset, tokenizer)


def read_ids(shards: TokenShards) -> np.ndarray:
    tokens = shards.tokens("train")
    return tokens[0 : len(tokens)]


def list_objects(url: str) -> dict[str, int]:
    return {name: size for name, size, _ in RemoteFolder(url).list_files()}


def build_here(job: Job) -> Corpus | None:
    """Do all tasks in this process."""
    for stage, number in (
        ("read", len(job.tasks)),
        ("hold-out", 1),
        ("buckets", 14),
        ("clusters", 1),
    ):
        for rank in range(number):
            open_executor(job, stage, rank).run()
    for stage, number in (("write", len(job.tasks)), ("finish", 1)):
        for rank in reversed(range(number)):
            open_executor(job, stage, rank).run()
    return open_corpus(job.out)


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "TASK_BYTES", 5_000)


def test_a_corpus_has_the_shards_that_the_same_text_has_here(tmp_path: Path) -> None:
    source = write_tables(tmp_path / "notes")
    job = make_job(source, tmp_path / "out")
    assert job.tasks == [[0], [1], [2], [3]]
    corpus = build_here(job)
    assert corpus is not None

    subset, tokenizer, shards = open_all(tmp_path / "home", corpus.url)
    own = materialize_subset(tmp_path / "home", load_params(dataset=str(source)).dataset)
    wanted = tokenize_subset(tmp_path / "home", own, tokenizer)
    assert (read_ids(shards) == read_ids(wanted)).all()
    assert shards.num_train_tokens == wanted.num_train_tokens == corpus.num_tokens
    assert shards.num_train_bytes == wanted.num_train_bytes == corpus.num_bytes
    assert shards.validation_sha256 == wanted.validation_sha256
    assert (shards.validation_offsets() == wanted.validation_offsets()).all()
    assert subset.record.near_duplicates == 1 and own.record.exact_duplicates == 1
    assert subset.num_documents == 160 and tokenizer.vocab_size == 380


def test_another_corpus_is_not_overwritten(tmp_path: Path) -> None:
    source = write_tables(tmp_path / "notes")
    out = tmp_path / "out"
    build_here(make_job(source, out))
    assert build_corpus(make_job(source, out), 1) == open_corpus(out.as_uri())
    with pytest.raises(DatasetError, match="another --out"):
        build_corpus(make_job(source, out, **{"dataset.mask": True}), 1)


@pytest.mark.slow  # half a dozen processes on a server in Python: 10 s
def test_a_corpus_on_s3_is_that_of_a_folder_and_tells_no_key(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "TASK_BYTES", 20_000)
    source = write_tables(tmp_path / "notes")
    for path in source.iterdir():
        folder = RemoteFolder(f"{s3}/raw/notes")
        folder.put_bytes(path.name, path.read_bytes(), tmp_path)

    said: list[str] = []
    job = make_job(f"{s3}/raw/notes", f"{s3}/notes")
    build_corpus(job, 2, report=said.append)
    here = make_job(source, tmp_path / "out")
    build_here(here)

    _, _, shards = open_all(tmp_path / "home", f"{s3}/notes")
    _, _, wanted = open_all(tmp_path / "other", here.out)
    assert (read_ids(shards) == read_ids(wanted)).all()
    assert not any("work/" in name for name in list_objects(f"{s3}/notes"))
    written = "".join(
        path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file()
    )
    assert "a-secret-of-the-test" not in written + "".join(said) + job.model_dump_json()


@pytest.mark.slow  # a whole command: 25 s
def test_a_command_trains_on_a_corpus_on_s3_and_registers_a_version(
    tmp_path: Path, s3: str
) -> None:
    job = make_job(write_tables(tmp_path / "notes"), f"{s3}/notes")
    build_here(job)
    command = [sys.executable, "-m", "lightlm_flows.cli", "train", "--json", "--quiet"]
    done = subprocess.run(
        [*command, "--hours", "0.008", "--dataset", f"{s3}/notes"],
        env=os.environ | {"LIGHTLM_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["model_version"] == "1" and summary["tokens"] > 0
    assert summary["dataset"]["name"] == "notes"
    assert any((tmp_path / "home/cache/blocks").rglob("*"))


@pytest.mark.faults
@pytest.mark.parametrize("stage", ["read", "write"])
def test_the_work_of_a_killed_worker_is_done_again(tmp_path: Path, stage: str) -> None:
    source = write_tables(tmp_path / "notes")
    job = make_job(source, tmp_path / "out")
    killed: list[int] = []
    is_over = threading.Event()

    def kill() -> None:
        logs = tmp_path / f"out/work/{job.fingerprint}/done/{stage}/logs"
        while not killed and not is_over.is_set():
            children = psutil.Process().children()
            busy = [one for one in children if "lightlm.data.building.stages" in one.cmdline()]
            if busy and logs.exists() and any(logs.iterdir()):
                busy[0].kill()
                killed.append(busy[0].pid)
            time.sleep(0.001)

    killer = threading.Thread(target=kill)
    killer.start()
    build_corpus(job, 2)
    is_over.set()
    killer.join()

    assert killed
    again = make_job(source, tmp_path / "again")
    build_corpus(again, 1)
    assert list_objects(job.out) == list_objects(again.out)
    names = [name for name in list_objects(job.out) if "manifest" not in name]
    assert all(
        hashlib.sha256(RemoteFolder(job.out).read(name)).hexdigest() == name.rpartition("/")[2]
        for name in names
    )


@pytest.mark.slow  # four processes
def test_two_machines_share_the_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "POLL_SECONDS", 0.1)
    source = write_tables(tmp_path / "notes")
    job = make_job(source, tmp_path / "out")
    said: list[str] = []
    second = threading.Thread(target=build_corpus, args=(job, 1, Machine(1, 2), said.append))
    second.start()
    corpus = build_corpus(job, 1, Machine(0, 2))
    second.join()
    assert corpus.num_tokens > 0
    assert any("read: 2 of 4 tasks" in line for line in said)
    alone = make_job(source, tmp_path / "alone")
    assert build_here(alone) is not None
    assert list_objects(alone.out).keys() >= list_objects(job.out).keys()
