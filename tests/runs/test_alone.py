"""LightLM from Python as docs/python.md and the notebook show it: without Prefect, each line once."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightlm.budget.plan import Plan
from lightlm.runs.summary import RunSummary
from tests.command_line import SECONDS, CommandLine

DOCUMENTS = Path(__file__).resolve().parents[2] / "docs"
CODE_CELL = "code"
NOTEBOOK = "--- the notebook"
SHORT = ', 0.009, preset="smoke"'

FORBID = """
import sys

sys.modules["prefect"] = sys.modules["typer"] = sys.modules["lightlm_flows"] = None
"""
"""What comes before each example: whoever imports one of these from now on fails."""


def read_page() -> list[str]:
    """Return the blocks of docs/python.md that train and load, in the order of their running."""
    page = (DOCUMENTS / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if re.search(r"lightlm\.(train|load)\(", block)]


def read_cells() -> Iterator[tuple[str, list[str]]]:
    """Yield the code and the tags of each code cell of the notebook."""
    notebook = json.loads((DOCUMENTS / "lightlm.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == CODE_CELL:
            yield "".join(cell["source"]), cell["metadata"].get("tags", [])


@pytest.fixture(scope="module")
def printed(make_command_line: "type[CommandLine]", text: Path) -> str:
    """Return what docs/python.md and then the notebook print in one home, on the smoke preset."""
    train, load = read_page()
    assert train.count('"my-notes/", "30m"') == 2
    train = train.replace('"my-notes/", "30m"', f'"{text}"{SHORT}, name="notes"')
    show = "\nimport json\nprint('SUMMARY', json.dumps(trained.summary))\n"
    show += "print('PLANNED', json.dumps([planned.bits_per_byte, planned.low, planned.details]))\n"

    values = f'TEXT = {str(text)!r}\nHOURS = 0.009\nPRESET = "smoke"\n'
    cells = [values if "parameters" in tags else code for code, tags in read_cells()]
    assert cells[0] == values
    script = [FORBID, train, show, load, f"\nprint({NOTEBOOK!r})", *cells]
    # A notebook asks all programs for colors; lines that are reported hold none.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")
        process = make_command_line().start_python("-c", "\n".join(script))
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert err == ""
    return out


def list_stages(path: str) -> list[str]:
    """Return what a function that opens the first stage calls, in order, without prefixes."""
    tree = ast.parse((DOCUMENTS.parent / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        calls = [
            ast.unparse(one.func).rpartition(".")[2]
            for one in ast.walk(node)
            if isinstance(node, ast.With | ast.FunctionDef) and isinstance(one, ast.Call)
        ]
        if "ask_for_champion" in calls:
            found = calls
    return [name for name in found if name not in ("open_flow_session", "name_run")]


def test_the_stages_are_those_of_the_flow_in_its_order() -> None:
    stages = list_stages("lightlm/runs/alone.py")
    assert len(stages) > 10
    assert stages == list_stages("flows/train.py")


def test_the_page_plans_trains_loads_and_writes_without_prefect(printed: str) -> None:
    assert "notes 1 " in printed
    (summary,) = re.findall(r"^SUMMARY (.*)$", printed, re.MULTILINE)
    found = RunSummary.model_validate_json(summary)
    assert (found.model_name, found.model_version) == ("notes", "1")
    assert found.ledger["training"] > 0
    assert sum(found.ledger.values()) == pytest.approx(found.elapsed_seconds, abs=0.5)


def test_what_is_planned_is_the_score_that_the_version_gets(printed: str) -> None:
    (planned,) = re.findall(r"^PLANNED (.*)$", printed, re.MULTILINE)
    middle, low, details = json.loads(planned)
    expected = Plan.model_validate(details).predictions
    assert (middle, low) == expected[:2]


def test_each_line_of_progress_is_reported_once_and_without_a_terminals_codes(
    printed: str,
) -> None:
    # What a model of 18 seconds writes may hold any character.
    lines = [line for line in printed.splitlines() if re.search(r"[\d.]+ s\S* .*stage", line)]
    assert [line for line in lines if "\x1b" in line] == []
    stages = [line.partition("stage")[2] for line in lines]
    assert len(stages) >= 7
    assert len(set(stages)) == len(stages)


def test_the_notebook_runs_from_its_first_cell_to_its_last(printed: str) -> None:
    out = printed.partition(NOTEBOOK)[2]
    assert "against the prediction" in out
    assert "\nThe" in out
    assert "stage" not in out, "without a report, and outside of a notebook, nothing is shown"


@pytest.mark.faults
def test_a_model_that_mlflow_did_not_take_in_time_is_registered_when_it_is_loaded(
    make_command_line: "type[CommandLine]", text: Path
) -> None:
    late = (
        "import os\nos.environ['MLFLOW_TRACKING_URI'] = 'http://127.0.0.1:9'\n"
        f"import lightlm\ntrained = lightlm.train({str(text)!r}, 0.009, preset='smoke', name='late')\n"
        "print(repr(trained.version))\n"
        "try:\n    trained.load()\nexcept Exception as error:\n    print(error)\n"
        "del os.environ['MLFLOW_TRACKING_URI']\nprint(trained.load())\n"
    )
    process = make_command_line().start_python("-c", FORBID + late)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    version, reason, model = out.splitlines()
    assert version == "''"
    assert reason.startswith("late is not registered yet, and MLflow does not take it now")
    assert model == "lightlm.Model(models:/late/1)"


@pytest.mark.faults
def test_an_interrupted_call_is_resumed_by_the_same_one(
    make_command_line: "type[CommandLine]", text: Path
) -> None:
    request = json.dumps({
        "task": "train", "dataset": str(text), "hours": 1, "name": "long",
        "overrides": {"budget.planner": "manual", "model.num_layers": 1, "model.model_dim": 32,
                      "model.num_heads": 2, "model.context_length": 32, "tokenizer.vocab_size": 300,
                      "training.compile": "off", "training.batch_tokens": 256,
                      "tracking.system_metrics": False},
    })  # fmt: skip
    lightlm = make_command_line()
    process = lightlm.start_python("-m", "lightlm.runs.alone", request)
    assert process.stderr is not None
    for line in process.stderr:
        if "  train  " in line:
            break
    process.terminate()
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("lightlm: stopped; ")

    again = lightlm.start_python("-m", "lightlm.runs.alone", request)
    assert again.stderr is not None
    try:
        assert any("Continuing the unfinished run" in line for line in again.stderr)
    finally:
        again.terminate()
        again.communicate(timeout=SECONDS)


def test_a_request_that_cannot_be_used_is_one_line(home: Path) -> None:
    request = json.dumps({"task": "plan", "dataset": "nowhere.txt", "hours": 1})
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "lightlm.runs.alone", request],
        env=os.environ | {"LIGHTLM_HOME": str(home)}, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("lightlm: ")
    assert "nowhere.txt does not exist" in ended.stderr
    assert ended.stderr.count("\n") == 1
