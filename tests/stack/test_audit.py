"""Tests of `make audit` without a network: what pip-audit could not ask about is named, and the
rest still counts.
"""

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parent.parent.parent / "bin" / "audit"

FOUND = {"id": "PYSEC-2026-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
SOUND = {"name": "numpy", "version": "2.0", "vulns": []}
UNKNOWN = {
    "name": "accelerate",
    "skip_reason": "Dependency not found on PyPI and could not be audited",
}
VULNERABLE = {"name": "old", "version": "1.0", "vulns": [FOUND]}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("audit", str(PATH))
    spec = importlib.util.spec_from_loader("audit", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_what_cannot_be_asked_about_is_named_and_the_rest_is_audited(audit: ModuleType) -> None:
    lines, code = audit.summarize([UNKNOWN, SOUND, VULNERABLE])
    assert lines == [
        "audit: old 1.0 has PYSEC-2026-1; fixed in 2.0",
        f"audit: not asked about accelerate: {UNKNOWN['skip_reason']}",
        "audit: 2 of 3 pins asked about, 1 with known vulnerabilities, 1 that nobody could be "
        "asked about",
    ]
    assert code == 1


def test_the_exit_code_tells_sound_from_vulnerable_from_not_asked(audit: ModuleType) -> None:
    assert audit.summarize([SOUND]) == (
        ["audit: 1 of 1 pins asked about, 0 with known vulnerabilities"],
        0,
    )
    assert audit.summarize([SOUND, UNKNOWN])[1] == 2
    assert audit.summarize([VULNERABLE, UNKNOWN])[1] == 1


def test_an_audit_that_ends_without_an_answer_says_so_and_is_no_pass(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(["--no-such-option"]) == 2
    assert (
        "no pin could be asked about; pip-audit ended with exit code 2" in capsys.readouterr().out
    )
