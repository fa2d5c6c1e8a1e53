"""Tests of data sets of the Hub that are larger than what is needed of them: how much is asked for,
from where, and what is kept when the connection fails.
"""

import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightlm.data import parts
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.params import load_params

from .hub_server import COMMIT, Repositories, Sparse, count_asked_bytes, run_against, serve_hub

# huggingface_hub reads its endpoint when it is imported, so each conversation is a process of its
# own.
READ = """
import json, sys
from pathlib import Path
from lightlm.data.parts import keep_in_folder, read_parts
from lightlm.data.source import open_source
from lightlm.params import load_params
folder, needed = json.loads(sys.argv[1])
dataset = load_params(dataset="owner/large", overrides={"dataset.config": None}).dataset
source = read_parts(open_source(dataset), needed, 1 << 20, keep_in_folder(Path(folder)))
print(json.dumps({"about": source.about_bytes, "is_part": source.is_part, "notes": source.notes,
    "files": {split: [[file.input.name, str(file.input.path)] for file in files]
              for split, files in source.splits.items()}}))
"""

MATERIALIZE = """
import hashlib, json, re, sys
from lightlm.data.subset import materialize_subset
from lightlm.errors import LightLMError
from lightlm.params import load_params
from lightlm.store.home import find_home
homes, needed = json.loads(sys.argv[1])
dataset = load_params(dataset="owner/large", overrides={"dataset.config": None}).dataset
for home in homes:
    folder = find_home() / home
    try:
        subset = materialize_subset(folder, dataset, needed_bytes=[needed])
    except LightLMError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    else:
        text = subset.text_path("train").read_bytes()
        answer = {
            "bytes": subset.num_bytes, "held_out": subset.num_validation_bytes,
            "whole_bytes": subset.whole_bytes, "notes": subset.record.notes,
            "sha256": [hashlib.sha256(text).hexdigest(), subset.validation_sha256],
            "places": sorted(set(re.findall("place-[0-9]+-[0-9]+", text.decode()))),
        }
    answer["kept"] = sorted(
        path.parent.name for path in folder.glob("store/*/*") if path.name[0] != "."
    )
    print(json.dumps(answer))
"""

RUN_BYTES = 1 << 24
"""Bytes of text that a run of 0.02 hours can use on a processor."""

LETTERS = bytes((b"abcdefghijklmnopqrstuvwxyz     " * 9)[:256])


def make_text(seed: int, num_bytes: int) -> str:
    """Return random words."""
    return np.random.default_rng(seed).bytes(num_bytes).translate(LETTERS).decode()


def make_table(file: int, groups: int, rows: int = 64, row_bytes: int = 1600) -> bytes:
    """Return a parquet file: each row says its place, and has numbers that no reader asks for."""
    starts = range(0, groups * rows * row_bytes, row_bytes)
    text = make_text(file, len(starts) * row_bytes)
    numbers = np.random.default_rng(file).random(len(starts) * 16)
    table = pa.table(
        {
            "text": [
                f"place-{file}-{row // rows} {text[start : start + row_bytes]}"
                for row, start in enumerate(starts)
            ],
            "numbers": pa.FixedSizeListArray.from_arrays(numbers, 16),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=rows)
    return buffer.getvalue()


def stretch(content: bytes, size: int) -> Sparse:
    """Return a parquet file with so many bytes that belong to nothing before its footer."""
    footer = 8 + int.from_bytes(content[-8:-4], "little")
    return Sparse(content[:-footer], content[-footer:], size)


def make_data_set(num_files: int, groups: int) -> Repositories:
    """Return files of a gigabyte each, with 0.1 MB of text in each group of rows."""
    files = range(num_files)
    return {
        "owner/large": {
            f"data/train-{file:05}.parquet": stretch(make_table(file, groups), 1 << 30)
            for file in files
        }
    }


def converse(script: str, tmp_path: Path, endpoint: str, *values: object) -> list[dict]:
    return [json.loads(line) for line in run_against(endpoint, script, values, tmp_path)]


def test_a_short_run_asks_ten_gigabytes_for_what_it_needs_from_all_over_them(
    tmp_path: Path,
) -> None:
    with serve_hub(make_data_set(10, groups=24)) as (endpoint, requests):
        (source,) = converse(READ, tmp_path, endpoint, str(tmp_path), RUN_BYTES)

    tables = [pq.read_table(path) for _, path in source["files"]["train"]]
    texts = [text for table in tables for text in table["text"].to_pylist()]
    places = {text.partition(" ")[0] for text in texts}

    assert count_asked_bytes(requests) < 60_000_000
    assert all(COMMIT in request for request in requests if "/resolve/" in request)
    assert sum(map(len, texts)) > 1.25 * RUN_BYTES
    assert {table.column_names[0] for table in tables} == {"text"}
    assert len(tables) == 10 and len(places) >= 10 * 16
    assert max(int(place.split("-")[2]) for place in places) == 23
    assert [name for name, _ in source["files"]["train"]] != sorted(
        name for name, _ in source["files"]["train"]
    )
    assert source["is_part"]
    assert re.fullmatch(
        r"train: read 2\d MB of 11 GB in a seeded order \(10 of 10 files\)", source["notes"][0]
    )
    # What is in the files, whatever their size says.
    assert 20e6 < source["about"] < 60e6


def test_two_homes_read_the_same_text_and_a_broken_reading_leaves_nothing_that_is_not_whole(
    tmp_path: Path,
) -> None:
    faults = [""] * 14 + ["other"]
    with serve_hub(make_data_set(3, groups=8), faults=faults) as (endpoint, requests):
        broken, first, second = converse(
            MATERIALIZE, tmp_path, endpoint, ["a", "a", "b"], 1_000_000
        )

    assert broken["error"] == "DatasetError"
    assert "owner/large could not be read from the Hub (data/train-" in broken["message"]
    assert "start again" in broken["message"]
    assert broken["kept"] == ["hub-parts"]
    assert 1_000_000 <= first["bytes"] < 1_100_000
    assert first["held_out"] > 0
    assert first["whole_bytes"] > first["bytes"]
    assert first["kept"] == ["hub-parts", "hub-parts", "subsets"]
    assert second == first
    assert len({place.split("-")[1] for place in first["places"]}) == 2
    # What came whole before the break is not asked for again; the other home asks for all.
    files = [found[0] for request in requests if (found := re.search(r"train-\d+", request))]
    assert list(dict.fromkeys(files[:15])) == list(dict.fromkeys(files))
    assert files[15] == files[14] != files[0]


class Lines:
    """Gigabytes of rows of 256 bytes, each made when it is asked for."""

    def __init__(self, size: int, start: str, end: str) -> None:
        self.size = size
        self.start = start
        self.end = end

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.size)
        rows = range(start // 256, stop // 256 + 1)
        text = "".join(
            (f"{self.start}row-{row}-" + "word " * 60)[: 255 - len(self.end)] + f"{self.end}\n"
            for row in rows
        ).encode()
        return text[start - 256 * rows[0] :][: stop - start]


def test_lines_are_read_at_places_all_over_a_file_and_a_packed_one_from_its_beginning(
    tmp_path: Path,
) -> None:
    packed = gzip.compress(
        "".join(f'{{"text": "{make_text(i, 4000)}"}}\n' for i in range(999)).encode()
    )
    files: Repositories = {
        "owner/large": {
            "train-0.jsonl": Lines(1 << 33, '{"text": "', '"}'),
            "train-1.jsonl.gz": Sparse(packed, b"", 1 << 28),
            "validation.jsonl": Lines(1 << 30, '{"text": "', '"}'),
        }
    }
    with serve_hub(files) as (endpoint, requests):
        (source,) = converse(READ, tmp_path, endpoint, str(tmp_path), 8_000_000)

    paths = {name: Path(path) for side in source["files"].values() for name, path in side}
    rows = [json.loads(line)["text"] for line in paths["train-0.jsonl"].read_text().splitlines()]
    numbers = [int(row.split("-")[1]) for row in rows]
    assert len(numbers) == len(set(numbers)) and min(numbers) == 0
    assert max(numbers) > 0.9 * (1 << 33) / 256
    for line in paths["train-1.jsonl.gz"].read_text().splitlines():
        assert len(json.loads(line)["text"]) == 4000
    assert 1e6 < paths["validation.jsonl"].stat().st_size < 2e6
    assert count_asked_bytes(requests) < 30_000_000


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "WHOLE_BYTES", 20_000)
    monkeypatch.setattr(parts, "LEAST_SHARE", 2_000)
    monkeypatch.setattr(parts, "LEAST_PLACE", 500)


def write_rows(path: Path, number: int) -> None:
    text = make_text(sum(path.name.encode()), 80 * number)
    rows = [f"row {index:05} of {path.name} {text[80 * index :][:80]}" for index in range(number)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": rows}), path, row_group_size=50)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    else:
        path.write_text("\n".join(rows))


def find_rows(subset: TextSubset) -> list[int]:
    return [int(row) for row in re.findall("row ([0-9]{5})", subset.text_path("train").read_text())]


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize(("suffix", "num_places"), [(".jsonl", 12), (".txt", 12), (".parquet", 2)])
def test_a_short_run_reads_a_local_file_from_all_over_it(
    tmp_path: Path, suffix: str, num_places: int
) -> None:
    path = tmp_path / f"rows{suffix}"
    write_rows(path, 2000)
    dataset = load_params(dataset=str(path)).dataset
    one = materialize_subset(tmp_path / "one", dataset, needed_bytes=[10_000])
    two = materialize_subset(tmp_path / "two", dataset, needed_bytes=[10_000])

    assert one.text_path("train").read_bytes() == two.text_path("train").read_bytes()
    assert 8_000 <= one.num_bytes <= 20_000 and one.is_cut
    rows = find_rows(one)
    assert max(rows) > 1000 and len({row // 100 for row in rows}) >= num_places
    assert "in a seeded order (1 of 1 files)" in one.record.notes[0]
    assert not one.record.warnings
    # Nothing of the parts is left next to the subset.
    assert sorted(path.name for path in one.folder.iterdir() if path.is_dir()) == []

    whole = materialize_subset(tmp_path / "one", dataset, needed_bytes=[300_000])
    assert sorted(find_rows(whole))[0] == 0 and not whole.record.notes


@pytest.mark.usefixtures("small_sizes")
def test_local_files_give_their_shares_in_an_order_that_names_decide(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for index in range(8):
        write_rows(folder / f"part-{index}.jsonl", 300)
    write_rows(folder / "small.jsonl", 3)
    dataset = load_params(dataset=str(folder)).dataset
    subset = materialize_subset(tmp_path / "home", dataset, needed_bytes=[30_000])
    files = re.findall(r"row [0-9]{5} of ([-\w]+)", subset.text_path("train").read_text())
    order = list(dict.fromkeys(files))
    assert len(order) >= 8 and order != sorted(order)


@pytest.mark.usefixtures("small_sizes")
def test_a_file_whose_lines_no_byte_ends_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    text = make_text(1, 400_000)
    rows = (f"row {index:05} stra\u00dfe {text[100 * index :][:100]}" for index in range(4000))
    path.write_text("\n".join(rows), "utf-16")
    held_out = {"dataset.validation_fraction": 0.2}
    dataset = load_params(dataset=str(path), overrides=held_out).dataset
    subset = materialize_subset(tmp_path / "home", dataset, needed_bytes=[100_000])
    assert max(find_rows(subset)) < 2000 and "\ufffd" not in subset.text_path("train").read_text()
