"""Tests of jobs: the same for the same files wherever they are, and nothing left out in silence."""

import zipfile
from pathlib import Path

import pytest

from lightlm.data.building import job as jobs
from lightlm.data.building.job import Job, read_pieces
from lightlm.errors import DatasetError
from lightlm.store.remote import RemoteFolder
from tests.data.corpora import make_job, make_text, write_table, write_tables


def read_texts(job: Job) -> list[bytes]:
    return [
        piece.text
        for rank in range(len(job.tasks))
        for _, piece in read_pieces(job.open_task(rank))
    ]


def test_files_at_a_url_are_read_as_files_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "TASK_BYTES", 5_000)
    source = write_tables(tmp_path / "notes")
    (source / "README.md").write_text("about it")
    folder = RemoteFolder(f"memory://job-{tmp_path.name}/raw/notes")
    for path in source.iterdir():
        folder.put_bytes(path.name, path.read_bytes(), tmp_path)

    here = make_job(source, tmp_path / "out")
    there = make_job(folder.url, tmp_path / "out")
    assert here.tasks == there.tasks == [[0], [1], [2], [3]]
    assert (here.name, here.held_out_by) == (there.name, there.held_out_by)
    assert here.name == "notes" and here.held_out_by == "validation"
    texts = read_texts(here)
    assert read_texts(there) == texts and len(texts) == 161
    assert len(list(read_pieces(there.open_held_out()))) == 20
    again = Job.model_validate_json(there.model_dump_json())
    assert read_texts(again) == texts


def test_another_content_or_another_param_is_another_job(tmp_path: Path) -> None:
    source = write_tables(tmp_path / "notes")
    job = make_job(source, tmp_path / "out")
    assert make_job(source, tmp_path / "else").fingerprint == job.fingerprint
    assert make_job(source, tmp_path / "out", **{"dataset.mask": True}) != job
    write_table(source / "part-2.jsonl", [make_text(7)])
    assert make_job(source, tmp_path / "out").fingerprint != job.fingerprint


@pytest.mark.parametrize("overrides", [{"dataset.max_bytes": 5000}, {"dataset.max_documents": 10}])
def test_a_part_of_a_data_set_makes_no_corpus(tmp_path: Path, overrides: dict[str, int]) -> None:
    source = write_tables(tmp_path / "notes")
    with pytest.raises(DatasetError, match="one whole data set"):
        make_job(source, tmp_path / "out", **overrides)


def test_an_archive_is_to_be_unpacked_first(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("a.txt", "text\n" * 100)
    with pytest.raises(DatasetError, match="unpack it"):
        make_job(tmp_path / "notes.zip", tmp_path / "out")


def test_a_url_without_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no file that can be read"):
        make_job(f"memory://job-{tmp_path.name}/nothing", tmp_path / "out")
