"""Tests of data sets of the Hub, with the real client against a stand-in server that speaks its
protocol.
"""

import io
import json
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightlm.data.hub import group_splits, list_configs
from tests.data.conftest import make_document

from .hub_server import COMMIT, run_against, serve_hub

# huggingface_hub reads its endpoint when it is imported, so each conversation is a process of its
# own.
MATERIALIZE = """
import json, sys, time
from lightlm.data.subset import materialize_subset
from lightlm.errors import LightLMError
from lightlm.params import load_params
from lightlm.store.home import find_home
values = json.loads(sys.argv[1])
started = time.monotonic()
try:
    dataset = load_params(overrides=values).dataset
    subset = materialize_subset(find_home(), dataset, needed_bytes=[200_000])
except LightLMError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
else:
    print(json.dumps({"name": subset.name, "source": subset.source, "notice": subset.notice,
                      "documents": subset.num_documents, "held_out": subset.num_validation_documents,
                      "reused": subset.reused, "seconds": time.monotonic() - started}))
"""


def parquet(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), buffer)
    return buffer.getvalue()


WIKI = {
    "README.md": b"# about",
    "wiki-2/train-00000-of-00001.parquet": parquet([make_document(i) for i in range(40)]),
    "wiki-2/validation-00000-of-00001.parquet": parquet(
        [make_document(1000 + i) for i in range(4)]
    ),
    "wiki-2/test-00000-of-00001.parquet": parquet([make_document(2000 + i) for i in range(4)]),
    "wiki-103/train-00000-of-00001.parquet": parquet([make_document(i) for i in range(90)]),
}


def materialize(tmp_path: Path, endpoint: str, **values: object) -> dict:
    overrides = {f"dataset.{name}": value for name, value in values.items()}
    return json.loads(run_against(endpoint, MATERIALIZE, overrides, tmp_path)[-1])


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_configuration_of_a_data_set_is_downloaded_once_and_read(tmp_path: Path) -> None:
    with serve_hub({"owner/wiki": WIKI}) as (endpoint, requests):
        first = materialize(tmp_path, endpoint, source="owner/wiki", config="wiki-2")
        downloads = [
            request for request in requests if request.startswith("GET") and "/resolve/" in request
        ]
        second = materialize(tmp_path, endpoint, source="owner/wiki", config="wiki-2")
        again = [
            request for request in requests if request.startswith("GET") and "/resolve/" in request
        ]

    assert first["documents"] == 40
    assert first["held_out"] == 4
    assert first["name"] == "wiki-wiki-2"
    assert first["notice"] is None
    assert len(downloads) == 2, "the test split is not needed"
    assert all(COMMIT in request for request in downloads)
    assert again == downloads
    assert second["reused"]


def test_a_configuration_that_is_missing_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with serve_hub({"owner/wiki": WIKI}) as (endpoint, _):
        unnamed = materialize(tmp_path, endpoint, source="owner/wiki", config=None)
        wrong = materialize(tmp_path, endpoint, source="owner/wiki", config="wiki-3")
    for answer in (unnamed, wrong):
        assert answer["error"] == "DatasetError"
        assert "wiki-103, wiki-2" in answer["message"]


def test_a_data_set_that_the_hub_does_not_know_is_refused_and_not_replaced(tmp_path: Path) -> None:
    with serve_hub({"owner/wiki": WIKI}) as (endpoint, _):
        answer = materialize(tmp_path, endpoint, source="owner/wikki", config=None)
        revision = materialize(
            tmp_path, endpoint, source="owner/wiki", config="wiki-2", revision="nope"
        )
    assert answer["error"] == "DatasetError"
    assert "no data set 'owner/wikki'" in answer["message"]
    assert "no revision 'nope'" in revision["message"]


def test_without_the_hub_the_built_in_text_replaces_the_default_data_set_and_is_said(
    tmp_path: Path,
) -> None:
    answer = materialize(tmp_path, closed_port())
    assert answer["name"] == "python-docs"
    assert "the Hub is out of reach" in answer["notice"]
    assert "instead of Salesforce/wikitext" in answer["notice"]
    assert answer["documents"] > 0


def test_without_the_hub_a_data_set_that_was_named_is_never_replaced(tmp_path: Path) -> None:
    answer = materialize(tmp_path, closed_port(), source="owner/wiki", config="wiki-2")
    assert answer["error"] == "DatasetError"
    assert "no file or folder owner/wiki here" in answer["message"]
    assert "the Hub" in answer["message"] and "out of reach" in answer["message"]
    allowed = materialize(tmp_path, closed_port(), source="owner/wiki", offline="fallback")
    assert allowed["name"] == "python-docs"


def test_without_the_hub_no_fallback_is_an_error(tmp_path: Path) -> None:
    answer = materialize(
        tmp_path, closed_port(), source="owner/wiki", config="wiki-2", offline="no-fallback"
    )
    assert answer["error"] == "DatasetError"
    assert "give a file or a folder of text" in answer["message"]


def test_a_hub_that_does_not_answer_is_given_up_in_time(tmp_path: Path) -> None:
    with serve_hub({"owner/wiki": WIKI}, delay_seconds=4.0) as (endpoint, _):
        answer = materialize(
            tmp_path,
            endpoint,
            source="owner/wiki",
            config="wiki-2",
            offline="no-fallback",
            hub_timeout_seconds=1,
        )
    assert answer["error"] == "DatasetError"
    assert "no answer within 1 s" in answer["message"]


@pytest.mark.parametrize(
    ("names", "config", "splits"),
    [
        (
            ["data/train-0.parquet", "data/test-0.parquet", "README.md"],
            None,
            {"train": 1, "test": 1},
        ),
        (["train.csv", "valid.csv"], None, {"train": 1, "validation": 1}),
        (
            ["default/train/0000.parquet", "default/validation/0000.parquet"],
            "default",
            {"train": 1, "validation": 1},
        ),
        (["a/train.jsonl", "b/train.jsonl"], "b", {"train": 1}),
        (["a/train.jsonl", "b/train.jsonl"], None, {}),
        (["image.png"], None, {}),
    ],
)
def test_files_of_a_repository_are_grouped_by_split(
    names: list[str], config: str | None, splits: dict
) -> None:
    assert {split: len(files) for split, files in group_splits(names, config).items()} == splits


def test_configurations_are_the_folders_that_hold_data() -> None:
    assert list_configs(["b/train.parquet", "a/train/0.parquet", "README.md"]) == ["a", "b"]
