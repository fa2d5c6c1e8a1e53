"""tests/ mirrors the tree: a module has its test file, or a file here that tests it with others.

tests/architecture/test_mirror.py holds the same for flows, runs, versions and evaluation.
"""

from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = ("runs", "versions", "evaluation")

COVERED = {
    "lightlm/__main__.py": "packaging/test_metadata.py",
    "lightlm/api.py": "tracking/test_api.py",
    "lightlm/errors.py": "flows/cli/test_main.py",
    "lightlm/json_object.py": "test_child_process.py",
    "lightlm/budget/calibration.py": "budget/test_scaling.py",
    "lightlm/budget/devices.py": "budget/test_memory.py",
    "lightlm/budget/ranking.py": "budget/test_planner.py",
    "lightlm/console/lines.py": "console/test_menus.py",
    "lightlm/console/look.py": "data/test_advice.py",
    "lightlm/console/numbers.py": "console/test_panel.py",
    "lightlm/data/characters/*": "data/characters/test_decoding.py",
    "lightlm/data/copies/*": "data/copies/test_duplicates.py",
    "lightlm/data/files/*": "data/files/test_inputs.py",
    "lightlm/data/formats/*": "data/formats/test_documents.py",
    "lightlm/data/tables/*": "data/tables/test_tables.py",
    "lightlm/data/tokenization/*": "data/tokenization/test_checks.py",
    "lightlm/data/look.py": "data/test_odd_inputs.py",
    "lightlm/data/*": "data/test_subset.py",
    "lightlm/generation/*": "generation/test_text.py",
    "lightlm/model/memory.py": "budget/test_memory.py",
    "lightlm/model/packed_products.py": "model/test_packed.py",
    "lightlm/model/tensors.py": "model/test_transformer.py",
    "lightlm/tracking/mlflow_server.py": "flows/service/test_servers_exposure.py",
    "lightlm/tracking/outbox_process.py": "tracking/test_outbox.py",
    "lightlm/tracking/reports.py": "runs/test_report.py",
    "lightlm/tracking/*": "tracking/test_shipper.py",
    "lightlm/training/*": "training/test_run.py",
}
"""Pattern of modules without a file of their own -> what tests them, in tests/; the first counts."""


def list_modules_without_own_test() -> list[str]:
    """Return the modules for which tests/ has no file at the same place."""
    lonely = []
    for path in sorted((ROOT / "lightlm").rglob("*.py")):
        place = path.relative_to(ROOT / "lightlm")
        own = ROOT / "tests" / place.parent / f"test_{place.name}"
        if path.name != "__init__.py" and place.parts[0] not in ELSEWHERE and not own.is_file():
            lonely.append(path.relative_to(ROOT).as_posix())
    return lonely


def find_pattern(module: str) -> str | None:
    """Return the pattern that counts for a module."""
    return next((pattern for pattern in COVERED if fnmatch(module, pattern)), None)


def test_every_module_has_its_test_file_or_is_tested_by_a_named_one() -> None:
    lonely = [module for module in list_modules_without_own_test() if not find_pattern(module)]
    assert lonely == [], "add tests/.../test_NAME.py, or name the file that tests it in COVERED"


def test_every_named_file_is_there_and_needed() -> None:
    missing = [name for name in COVERED.values() if not (ROOT / "tests" / name).is_file()]
    assert missing == []
    needed = {find_pattern(module) for module in list_modules_without_own_test()}
    assert sorted(set(COVERED) - needed) == []
