"""The studio's calls on a home with two registered versions: models, texts, exports, champions."""

import json
import shutil
from pathlib import Path

import psutil
import pytest

from lightlm.errors import InputError
from lightlm.studio.models import find_export, find_exports
from tests.serving.conftest import Registered
from tests.studio.conftest import Page, open_page

PROMPT = "the old river 7 walks"


def test_the_page_begins_with_the_defaults_of_the_params(page: Page) -> None:
    state = page.get("/api/state")
    assert state["home"] == str(page.home)
    assert state["sampling"]["temperature"] == 0.8
    assert page.get("/api/models") == {"models": []}
    assert page.get("/api/runs") == {"runs": [], "trainings": []}


def test_a_wrong_field_is_refused_in_words(page: Page) -> None:
    for path, kind in (("/api/runs", "train"), ("/api/jobs", "plan")):
        answer = page.client.post(path, json={"kind": kind, "name": "my model"})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("name: give letters, digits,")
    answer = page.client.post("/api/jobs", json={"kind": "look", "dataset": "a\0b"})
    assert answer.json() == {"error": "dataset: it holds a NUL character; leave it out"}


def test_the_models_show_versions_champion_and_score(registered_page: Page) -> None:
    (model,) = registered_page.get("/api/models")["models"]
    assert model["name"] == "notes"
    second, first = model["versions"]
    assert (first["version"], first["aliases"]) == ("1", ["champion"])
    assert (second["bits_per_byte"], second["run"], second["exports"]) == ("2.0", None, [])


def test_a_text_comes_token_by_token_with_probabilities_and_the_writer_ends_with_the_studio(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLM_HOME", str(registered.home))
    writers: list[psutil.Process] = []
    for page in open_page(registered.home):
        check_text(page)
        writers += [
            child
            for child in psutil.Process().children()
            if any("writer_process" in word for word in child.cmdline())
        ]
    assert len(writers) == 1
    assert not writers[0].is_running()


def check_text(page: Page) -> None:
    """Let a version write, and ask for one that is not there."""
    body = {
        "model": "notes/1", "prompt": PROMPT, "stream": True, "logprobs": 4, "seed": 3,
        "max_tokens": 20,
    }  # fmt: skip
    with page.client.stream("POST", "/api/completions", json=body) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
    tokens = [token for one in choices for token in one["logprobs"]["tokens"]]
    assert len(tokens) == 20
    assert "".join(one["text"] for one in choices)

    refused = page.client.post("/api/completions", json={"model": "no/1", "prompt": "a"})
    assert refused.status_code == 404
    assert "model" in refused.json()["error"]["message"]


def test_the_files_of_an_export_are_sent_and_no_others(
    registered: Registered, registered_page: Page
) -> None:
    folder = find_exports(registered.home) / "notes-1-hf"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "inner" / "a.txt").write_text("inner")
    (folder / "link").symlink_to(registered.home / "mlflow.db")
    (export,) = registered_page.get("/api/models")["models"][0]["versions"][1]["exports"]
    assert export["folder"] == str(folder)
    assert {"name": "inner/a.txt", "bytes": 5} in export["files"]
    again = {"kind": "export", "name": "notes", "version": "1", "to": "hf"}
    refused = registered_page.client.post("/api/jobs", json=again)
    assert (
        "notes 1 is exported as hf already; its files are by the version" in refused.json()["error"]
    )

    sent = registered_page.client.get("/documents/exports/notes-1-hf/inner/a.txt")
    assert sent.content == b"inner"
    assert "attachment" in sent.headers["Content-Disposition"]
    assert "sandbox" in sent.headers["Content-Security-Policy"]
    for path in ("link", "../../started.json", "..%2f..%2fmlflow.db", "x", "inner"):
        answer = registered_page.client.get(f"/documents/exports/notes-1-hf/{path}")
        assert answer.status_code in (400, 404), path
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["..", ".", "a/../..", ""])
def test_no_name_of_an_export_leads_out_of_their_folder(home: Path, name: str) -> None:
    find_exports(home).mkdir(parents=True)
    (home / "studio" / "secret").write_text("x")
    (home / "secret").write_text("x")
    with pytest.raises(InputError, match="there is no file"):
        find_export(home, name, "secret")


def test_a_report_runs_nothing(page: Page) -> None:
    folder = page.home / "runs" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<script>alert(1)</script>")
    answer = page.client.get("/documents/reports/20260101-000000-abcdef")
    assert answer.status_code == 200
    assert "sandbox;" in answer.headers["Content-Security-Policy"]
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert "Cross-Origin-Opener-Policy" not in answer.headers, "not next to a sandbox"
    assert page.client.get("/documents/reports/..%2f..").status_code in (400, 404)


def test_a_body_that_is_no_request_is_said(page: Page) -> None:
    answer = page.client.post("/api/jobs", json={"kind": "promote", "name": "notes"})
    assert answer.status_code == 400
    assert answer.json() == {"error": "version: Field required"}
