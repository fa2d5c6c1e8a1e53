"""Plans for machines that are not here: the text is read, and nothing is timed."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from lightlm.errors import ParameterError
from lightlm.params import load_params
from lightlm.runs.elsewhere import compare_elsewhere, plan_elsewhere, write_picture


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("\n\n".join(f"Paragraph {i} tells of lamp {i * i}." for i in range(9000)))
    return path


def test_a_plan_for_another_machine_is_of_its_device_and_says_what_it_is_made_of(
    home: Path, notes: Path
) -> None:
    params = load_params(dataset=str(notes), hours=0.1)
    planned = plan_elsewhere(home, params, "t4", is_quiet=True)
    assert planned.plan.trainer.device == "cuda"
    assert planned.plan.trainer.dtype == "float16"
    assert "nothing was timed" in planned.plan.reasons[0]
    assert not any(reason.startswith("timed here") for reason in planned.plan.reasons)
    with pytest.raises(ParameterError, match="no machine is called"):
        plan_elsewhere(home, params, "abacus", is_quiet=True)


def test_a_comparison_is_a_picture_too(home: Path, notes: Path, tmp_path: Path) -> None:
    params = load_params(dataset=str(notes))
    found = compare_elsewhere(home, params, ["h100", "cpu-2"], None, is_quiet=True)
    assert [entry.machine for entry in found] == ["h100"] * 3 + ["cpu-2"] * 3
    write_picture(found, tmp_path / "machines.svg")
    picture = (tmp_path / "machines.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(picture).tag.endswith("svg")


def test_the_command_prints_a_comparison_as_json_and_refuses_what_makes_no_sense(
    home: Path, notes: Path
) -> None:
    def plan(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "lightlm", "plan", "--dataset", str(notes), *words],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    done = plan("--compare", "--machine", "t4", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert [entry["budget"] for entry in json.loads(done.stdout)["machines"]][:2] == [
        "5 min",
        "1 h",
    ]
    done = plan("--machine", "t4", "--machine", "h100")
    assert done.returncode == 2
    assert "add --compare" in done.stderr
