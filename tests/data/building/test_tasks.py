"""Tests of tasks: what is held out is not trained on, and a task done twice changes nothing."""

from pathlib import Path

import pytest

from lightlm.data.building import job as jobs
from lightlm.data.building import tasks
from lightlm.data.shards import tokenize_subset
from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.errors import DatasetError
from lightlm.params import load_params
from tests.data.corpora import build_plainly, make_job, make_text, write_table


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "TASK_BYTES", 30_000)


def test_held_out_documents_and_what_quotes_them_are_not_trained_on(tmp_path: Path) -> None:
    texts = [make_text(seed) for seed in range(400)]
    quotes = [f"as it was: {text} and so on" for text in texts]
    write_table(tmp_path / "notes/a.jsonl", texts)
    write_table(tmp_path / "notes/b.jsonl", quotes)
    job = make_job(tmp_path / "notes", tmp_path / "out")
    assert len(job.tasks) == 2
    url = build_plainly(job)

    params = load_params(dataset=url)
    subset = materialize_subset(tmp_path / "home", params.dataset)
    tokenizer = prepare_tokenizer(tmp_path / "home", params.tokenizer, subset, [400])
    shards = tokenize_subset(tmp_path / "home", subset, tokenizer)
    held_out = {document.decode() for document in subset.read_documents("validation")}
    tokens = shards.tokens("train")
    trained = tokenizer.decode(tokens[0 : len(tokens)].tolist())
    assert 10 <= len(held_out) <= 60
    assert not any(text.removeprefix("as it was: ")[:200] in trained for text in held_out)
    assert trained.count("as it was") > 300
    record = subset.record
    # Of a text and its quote that are both held out, one is left out.
    assert 0 <= 800 - len(held_out) - record.near_duplicates - record.documents <= 3
    assert record.split.endswith("chosen by a hash of each document")


def test_a_task_that_is_done_again_writes_the_same(tmp_path: Path) -> None:
    write_table(tmp_path / "notes/a.jsonl", [make_text(seed) for seed in range(300)])
    job = make_job(tmp_path / "notes", tmp_path / "out")
    build_plainly(job)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    tasks.read_task(job, 0)
    tasks.hold_out(job)
    tasks.write_task(job, 0)
    tasks.finish(job)
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert before == after


def test_a_text_that_nothing_can_be_held_out_of_is_told(tmp_path: Path) -> None:
    write_table(tmp_path / "notes/a.jsonl", [make_text(1)])
    with pytest.raises(DatasetError, match="0 held out"):
        build_plainly(make_job(tmp_path / "notes", tmp_path / "out"))
