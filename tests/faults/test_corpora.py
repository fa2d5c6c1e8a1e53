"""Hostile corpora as real files: each is trained on, or refused in one line at once, in bounded
memory.

A bomb comes as parquet: 469 bytes that hold four gigabytes of text. Those of archives are
tests/data's.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LIGHTLM = Path(sys.executable).with_name("lightlm")

PEAK_MEGABYTES = 1000.0
"""Above what Python and torch take before they read anything."""

GLANCE_SECONDS = 30.0
"""Within which what cannot be trained on is refused: seconds, and a loaded machine gets more."""

WORDS = (
    "river lantern teacher mountain engine garden letter winter captain window harbour story"
).split()


def sentence(number: int) -> str:
    return (
        f"{number} little {WORDS[number % 12]}s saw {number + 1} old {WORDS[number % 7]}s; "
        f"{number % 3} went home."
    )


def lines(number: int = 400) -> bytes:
    return b"".join(
        sentence(n).encode() + (b"\n\n" if n % 4 == 3 else b"\n") for n in range(number)
    )


def rows(values: Iterable[Any], column: str = "text") -> bytes:
    return b"".join(json.dumps({column: value}).encode() + b"\n" for value in values)


SENTENCES = [sentence(number) * 3 for number in range(80)]


@dataclass(frozen=True)
class Corpus:
    """A file or folder, how it is made, and what is to come of it: words of the refusal, or counts
    of the subset.
    """

    name: str
    make: Callable[[Path], object]
    refused: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)


def content(value: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(value)


def repeat(value: bytes, times: int, end: bytes = b"") -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            for _ in range(times // 1000):
                file.write(value * 1000)
            file.write(end)

    return make


def table(values: Any, **options: Any) -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.table({"text": values}), path, **options)


def make_bomb(path: Path) -> None:
    """Write a few hundred bytes that name one text of a megabyte four thousand times."""
    text = pa.array(["x" * 1_000_000] * 4000, pa.large_string())
    pq.write_table(pa.table({"text": text}), path, compression="zstd")
    assert path.stat().st_size < 2000


def make_damaged(path: Path) -> None:
    """Write a parquet file whose table of contents is fine and whose pages are not."""
    table(
        [f"{n} {s}" for n, s in enumerate(SENTENCES * 50)], compression="zstd", use_dictionary=False
    )(path)
    damaged = bytearray(path.read_bytes())
    damaged[100:2000] = bytes(1900)
    path.write_bytes(damaged)


def make_folder(path: Path) -> None:
    """Fill a folder with text, and with what is no file: loops, a pipe, devices, links
    to nowhere.
    """
    path.mkdir()
    (path / "good.txt").write_bytes(lines())
    (path / "loop").symlink_to(path, target_is_directory=True)
    (path / "self.txt").symlink_to(path / "self.txt")
    (path / "zero.txt").symlink_to("/dev/zero")
    (path / "gone.txt").symlink_to(path / "nowhere")
    (path / "deep").mkdir()
    (path / "deep" / "up.txt").symlink_to("../..", target_is_directory=True)
    os.mkfifo(path / "pipe.txt")


def make_two_tables(path: Path) -> None:
    """Write two parquet files of which the second has another column."""
    path.mkdir()
    table(SENTENCES)(path / "a.parquet")
    pq.write_table(pa.table({"body": SENTENCES}), path / "b.parquet")


CORPORA = (
    Corpus("nul.txt", content(lines().replace(b"old", b"o\0d")), refused="holds NUL bytes"),
    Corpus("nul only.txt", content(bytes(3_000_000)), refused="holds NUL bytes"),
    Corpus(
        "nul.csv",
        content(b"text\n" + b"".join(s.encode() + b"\0\n" for s in SENTENCES)),
        refused="NUL",
    ),
    Corpus("latin.txt", content(lines().replace(b"little", b"caf\xe9")), counts={"replaced": 0}),
    Corpus(
        "random.txt", lambda path: path.write_bytes(os.urandom(2_000_000)), refused="random.txt"
    ),
    Corpus(
        "surrogates.jsonl",
        content(rows(s + "\ud800" for s in SENTENCES)),
        refused="of the rows hold bytes",
    ),
    Corpus(
        "some surrogates.jsonl",
        content(rows(SENTENCES * 2 + ["x \ud800 y"])),
        counts={"replaced": 1},
    ),
    Corpus("one line.txt", repeat(b"a very long line of words ", 4_000_000)),
    Corpus("one wide line.txt", repeat("\U0001f600\u4e2d\u6587 ".encode(), 9_100_000)),
    Corpus(
        "one long row.jsonl",
        repeat(b"words in a row ", 6_700_000, b'"}\n' + rows(SENTENCES)),
        counts={"documents": 80},
    ),
    Corpus("one long document.jsonl", lambda path: make_long_document(path)),
    Corpus(
        "a million empty rows.jsonl",
        repeat(b'{"text": ""}\n', 1_000_000),
        refused="1,000,000 empty rows",
    ),
    Corpus(
        "a million empty rows and some text.jsonl",
        repeat(b'{"text": ""}\n', 1_000_000, rows(SENTENCES)),
        counts={"empty": 1_000_000},
    ),
    Corpus("a million empty lines.txt", repeat(b"\n", 1_000_000), refused="too small"),
    Corpus("empty.txt", content(b""), refused="holds no text"),
    Corpus("empty.csv", content(b""), refused="empty.csv"),
    Corpus("nulls.parquet", table(pa.array([None] * 1000, pa.string())), refused="holds no text"),
    Corpus("some nulls.parquet", table([*SENTENCES, *[None] * 500]), counts={"empty": 500}),
    Corpus("nulls.jsonl", content(rows([None] * 1000)), refused="holds no text"),
    Corpus(
        "some nulls.jsonl",
        content(rows([*SENTENCES, *[None] * 500]) + b"{}\n"),
        counts={"empty": 501},
    ),
    Corpus("duplicates.jsonl", content(rows(["the same again"] * 5000)), refused="too small"),
    Corpus(
        "many duplicates.jsonl",
        content(rows([SENTENCES[n % 20] for n in range(5000)])),
        counts={"duplicates": 4980},
    ),
    Corpus("numbers.jsonl", content(rows(range(100))), refused="no column of text"),
    Corpus(
        "lists.jsonl",
        content(rows([[1, 2]] * 100)),
        "text",
        overrides={"dataset.text_column": "text"},
    ),
    Corpus(
        "lists.parquet", table([["a"]] * 9), "too small", overrides={"dataset.text_column": "text"}
    ),
    Corpus("mixed.jsonl", content(rows([*SENTENCES, 7, None, True, ["a"], {"b": 1}]))),
    Corpus(
        "no column.jsonl",
        content(rows(SENTENCES)),
        "no column 'body'",
        overrides={"dataset.text_column": "body"},
    ),
    Corpus("arrays.jsonl", content(b"[1]\n" * 100), refused="holds no rows of text"),
    Corpus("deep.jsonl", content(b"[" * 200_000 + b"\n"), refused="not JSON"),
    Corpus("deep.json", content(b'{"a":' * 200_000), refused="no readable JSON"),
    Corpus("folder", make_folder),
    Corpus("two tables", make_two_tables),
    Corpus("pipe.txt", lambda path: os.mkfifo(path), refused="a pipe or a device"),
    Corpus("device.txt", lambda path: path.symlink_to("/dev/zero"), refused="a pipe or a device"),
    Corpus("windows.txt", content(b"\xef\xbb\xbf" + lines().replace(b"\n", b"\r\n"))),
    Corpus("old mac.txt", content(lines().replace(b"\n", b"\r") * 8)),
    Corpus(
        "windows.csv",
        content(
            b'\xef\xbb\xbftext\r\n"' + b'"\r\n"'.join(s.encode() for s in SENTENCES) + b'"\r\n'
        ),
    ),
    Corpus("utf-16.txt", content(lines().decode().encode("utf-16")), counts={"replaced": 0}),
    Corpus(
        "utf-16 without mark.txt",
        content(lines().decode().encode("utf-16-le")),
        counts={"replaced": 0},
    ),
    Corpus(
        "utf-16.jsonl", content(rows(SENTENCES).decode().encode("utf-16")), counts={"replaced": 0}
    ),
    Corpus("gzip.txt", content(b"\x1f\x8b\x08\0" + bytes(1000)), refused="is gzip, not text"),
    Corpus("text.txt.gz", content(b"\x1f\x8b\x08\0" + bytes(1000)), refused="text.txt.gz"),
    Corpus("zip.csv", content(b"PK\x03\x04" + bytes(1000)), refused="is zip, not text"),
    Corpus("bomb.parquet", make_bomb, refused="give more text"),
    Corpus("damaged.parquet", make_damaged, refused="cannot be read"),
    Corpus("line\nbreak \x1b[2J\x07.txt", content(lines())),
    Corpus("line\nbreak \x1b[2J\x07.jsonl", content(b"no json\n"), refused="not JSON"),
    Corpus("x" * 250 + ".txt", content(lines())),
    Corpus(
        "two special tokens.txt", content(lines().replace(b"old", b"<|endoftext|><|im_start|>"))
    ),
)


def make_long_document(path: Path) -> None:
    """Write a hundred megabytes as one document among others."""
    with path.open("wb") as file:
        file.write(rows(SENTENCES) + b'{"text": "')
        for _ in range(100):
            file.write(b"one long document " * 55_555)
        file.write(b'"}\n')


Try = Callable[[Corpus], dict[str, Any]]


@pytest.fixture(scope="module")
def try_it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Try]:
    """Give what makes a corpus and tries to train on it."""
    folder = tmp_path_factory.mktemp("corpora")
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("corpus_trials.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        text=True,
    )

    count = itertools.count()

    def try_corpus(corpus: Corpus) -> dict[str, Any]:
        place = folder / str(next(count))
        place.mkdir()
        path = place / corpus.name
        corpus.make(path)
        request = {"path": str(path), "home": str(place / "home"), "overrides": corpus.overrides}
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        if not path.is_dir():
            path.unlink()

        return answer

    yield try_corpus
    assert server.stdin is not None
    server.stdin.close()
    server.wait(20)


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: ascii(corpus.name[:40]))
def test_a_hostile_corpus_is_trained_on_or_refused_at_once_in_bounded_memory(
    corpus: Corpus, try_it: Try, tell: Callable[[str], None]
) -> None:
    answer = try_it(corpus)
    assert "broken" not in answer, answer["broken"]
    outcome = answer.get("refused") or f"trained, {answer['counts']}"
    tell(f"{answer['megabytes']:.0f} MB, {answer['seconds']:.1f} s: {ascii(outcome)[1:160]}")
    assert answer["megabytes"] < PEAK_MEGABYTES

    if corpus.refused:
        assert corpus.refused in answer.get("refused", f"nothing; {outcome}")
        assert answer["code"] == 2
        assert answer["seconds"] < GLANCE_SECONDS
        return

    assert "refused" not in answer, answer["refused"]
    assert len(answer["losses"]) == 5
    assert all(0 < loss < 20 for loss in answer["losses"])
    assert {name: answer["counts"][name] for name in corpus.counts} == corpus.counts


@pytest.mark.parametrize(
    "name", ["line\nbreak \x1b[2J\x07.jsonl", "x" * 5000 + ".txt", "nul\\0.txt", "\x1b]0;t\x07"]
)
def test_a_hostile_name_comes_back_escaped_on_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if len(name) < 200:
        path.write_bytes(b"no json\n")

    done = subprocess.run(
        [LIGHTLM, "train", "--hours", "0.01", "--dataset", str(path)],
        capture_output=True,
        timeout=120,
        check=False,
        env=os.environ | {"LIGHTLM_HOME": str(tmp_path / "home")},
    )

    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("lightlm: ")][-1].isprintable()
    assert "\x1b" not in said
    assert not list(tmp_path.glob("home/runs/*"))
