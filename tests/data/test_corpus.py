"""Tests of corpora as data sets: what a run asks of them, and what they cannot give."""

from pathlib import Path

import pytest

from lightlm.data.corpus import find_corpus_url, open_corpus
from lightlm.data.look import look_at
from lightlm.data.source import open_source
from lightlm.data.subset import check_dataset, materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.errors import CorruptError, DatasetError, ParameterError, TokenizerError
from lightlm.params import load_params
from lightlm.runs.input_checks import check_corpus_start
from tests.data.corpora import build_plainly, make_job, write_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a corpus."""
    root = tmp_path_factory.mktemp("corpus")
    build_plainly(make_job(write_tables(root / "notes"), root / "out"))
    return root / "out"


def test_a_folder_with_a_corpus_is_one_by_path_or_url(folder: Path, tmp_path: Path) -> None:
    corpus = open_corpus(str(folder))
    assert corpus is not None and corpus == open_corpus(f"{folder.as_uri()}/")
    assert corpus.name == "notes" and corpus.num_tokens > 1000
    assert open_corpus(str(tmp_path)) is None and find_corpus_url("OWNER/NAME") is None
    source = open_source(load_params(dataset=str(folder)).dataset)
    assert source.digest == corpus.digest and source.num_bytes == corpus.num_bytes
    subset = materialize_subset(tmp_path, load_params(dataset=str(folder)).dataset)
    assert subset.source_digest == source.short_digest


def test_a_url_without_a_corpus_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="lightlm tokenize"):
        check_dataset(load_params(dataset=f"memory://nothing-{tmp_path.name}/x").dataset)


def test_a_corpus_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    url = folder.as_uri()
    check_dataset(load_params(dataset=url).dataset)
    mixed = load_params(overrides={"dataset.source": url, "dataset.others": ["python-docs:0.1"]})
    with pytest.raises(DatasetError, match="give it alone"):
        check_dataset(mixed.dataset)
    with pytest.raises(DatasetError, match="tokenized already"):
        look_at(load_params(dataset=url).dataset)

    params = load_params(dataset=url, overrides={"tokenizer.vocab_size": 999})
    subset = materialize_subset(tmp_path, params.dataset)
    with pytest.raises(TokenizerError, match="with 380 entries"):
        prepare_tokenizer(tmp_path, params.tokenizer, subset, [999])


def test_a_corpus_is_trained_on_from_scratch(folder: Path, tmp_path: Path) -> None:
    params = load_params(dataset=str(folder), overrides={"start.source": "auto"})
    with pytest.raises(ParameterError, match="from scratch"):
        check_corpus_start(params)


def test_a_url_with_a_key_is_refused_without_the_key() -> None:
    with pytest.raises(ParameterError) as refused:
        load_params(dataset="s3://name:a-secret@bucket/x")
    assert "a-secret" not in str(refused.value)


def test_a_part_that_is_another_one_is_refused(folder: Path, tmp_path: Path) -> None:
    manifest = next((folder / "subsets").glob("*/manifest.json"))
    content = manifest.read_bytes()
    other = next((folder / "tokenizers").glob("*/manifest.json")).read_bytes()
    try:
        manifest.write_bytes(other)
        with pytest.raises(CorruptError, match="wanted subsets"):
            materialize_subset(tmp_path, load_params(dataset=str(folder)).dataset)
        manifest.unlink()
        with pytest.raises(CorruptError, match="make the corpus again"):
            materialize_subset(tmp_path, load_params(dataset=str(folder)).dataset)
    finally:
        manifest.write_bytes(content)
