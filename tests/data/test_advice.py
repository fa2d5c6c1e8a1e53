"""Every refusal of the data stage names a command or an option, and that leads on."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lightlm_flows.cli.main import app
from tests.data.conftest import make_document

TEXTS = [make_document(seed) for seed in range(40)]
LONG = "\n\n".join(TEXTS)
LATIN = "Über den Fluß führte eine schöne Brücke, und die Mädchen hörten die Vögel.\n"
ARABIC = "كان البيت القديم يقف في نهاية الطريق.\n"

OPTION = re.compile(r"--(?:text-column|set|dataset)[ =](?:'[^']*'|[^\s,;?)]+)")
NEAR = re.compile(r"did you mean (\S+?)\?")


def lines_of(*columns: str) -> str:
    return "".join(
        json.dumps({name: f"{name} {text}" for name in columns}) + "\n" for text in TEXTS
    )


def write_parquet(path: Path, **columns: pa.Array) -> None:
    pq.write_table(pa.table(columns), path)


def write_json(path: Path, make: Callable[[int, str], object]) -> None:
    path.write_text(
        "".join(json.dumps(make(number, text)) + "\n" for number, text in enumerate(TEXTS))
    )


def write_split(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.txt").write_text(LONG[:3000])
    (folder / "valid.txt").write_text(LONG)


CASES: dict[str, Callable[[Path], object]] = {
    "two.jsonl": lambda path: path.write_text(lines_of("left", "right")),
    "names.jsonl": lambda path: path.write_text(lines_of("a b", "--x", "ü")),
    "two.csv": lambda path: path.write_text(
        "left;right\n" + "".join(f"{t};{t[::-1]}\n" for t in TEXTS)
    ),
    "numbers.csv": lambda path: path.write_text(
        "a,b\n" + "".join(f"{n},{n / 7}\n" for n in range(400))
    ),
    "nested.jsonl": lambda path: write_json(
        path, lambda n, t: {"id": n, "doc": {"title": f"t{n}", "body": t}}
    ),
    "deep.jsonl": lambda path: write_json(
        path, lambda n, t: {"id": n, "a": {"b": {"c": {"d": {"e": t}}}}}
    ),
    "some.jsonl": lambda path: write_json(
        path, lambda n, t: {"text": t if n % 9 else {"inside": t}}
    ),
    "squad.jsonl": lambda path: write_json(
        path, lambda n, t: {"title": f"A page of {n} and {t[:9]}", "parts": [{"t": t}]}
    ),
    "preference.jsonl": lambda path: path.write_text(lines_of("prompt", "chosen", "rejected")),
    "tokens.parquet": lambda path: write_parquet(
        path, id=pa.array(range(40)), tokens=pa.array([text.split() for text in TEXTS])
    ),
    "struct.parquet": lambda path: write_parquet(
        path, doc=pa.array([{"a": t, "b": t[::-1]} for t in TEXTS])
    ),
    "latin.parquet": lambda path: write_parquet(
        path, text=pa.array([f"{LATIN} {text}".encode("cp1252") for text in TEXTS])
    ),
    "mixed.txt": lambda path: path.write_bytes(
        (LATIN * 9).encode() + (LATIN * 9).encode("cp1252") + LONG.encode()
    ),
    "unsure.txt": lambda path: path.write_bytes(
        "".join(f"{number} {ARABIC}" for number in range(40)).encode("iso8859_6")
    ),
    "damaged.jsonl": lambda path: path.write_bytes(
        "".join(
            json.dumps({"text": f"{text} é"}, ensure_ascii=False) + "\n" for text in TEXTS
        ).encode()
        + b'{"text": "a \xe9 and another \xe8"}\n{"text": "one \xff more"}\n'
    ),
    "split": write_split,
}
"""Names -> how the input is made; each is refused as it stands."""


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str | None]:
    """Return a function that runs the command and gives the refusal, None where it went well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*words: str) -> str | None:
        result = CliRunner().invoke(app, ["look", *words, "--json"])
        if result.exit_code == 0:
            assert json.loads(result.stdout)["documents"] >= 1
            return None
        assert getattr(result.exception, "exit_code", None) == 2, result.exception
        return str(result.exception)

    return run


@pytest.mark.parametrize("name", CASES)
def test_each_option_that_a_refusal_names_leads_on(
    look: Callable[..., str | None], tmp_path: Path, name: str
) -> None:
    CASES[name](tmp_path / name)
    refusal = look(name)
    assert refusal is not None and "\n" not in refusal
    options = OPTION.findall(refusal)
    assert options, refusal
    for option in options:
        assert look(name, *shlex.split(option)) is None, option


def test_a_wrong_column_and_a_wrong_path_name_the_nearest_and_it_leads_on(
    look: Callable[..., str | None], tmp_path: Path
) -> None:
    (tmp_path / "reviews.jsonl").write_text(lines_of("review", "title"))
    refusal = look("reviews.jsonl", "--text-column", "reveiw") or ""
    assert look("reviews.jsonl", *shlex.split(OPTION.findall(refusal)[0])) is None

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "novel.txt").write_text(LONG)
    for wrong in ("data/novel", "data/novell.txt", "data/Novel.markdown"):
        near = NEAR.search(look(wrong) or "")
        assert near is not None and look(near[1]) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda number, text: {"id": [number], "parts": [[text], [text]]},
        lambda number, text: {"parts": [{"deep": text}]},
    ],
)
def test_a_column_that_gives_no_text_even_if_it_is_named_is_not_offered(
    look: Callable[..., str | None], tmp_path: Path, make: Callable[[int, str], object]
) -> None:
    write_json(tmp_path / "a.jsonl", make)
    refusal = look("a.jsonl") or ""
    assert not OPTION.findall(refusal)
    assert "write the text of each row as a string" in refusal
