"""Each module of flows, runs, versions and evaluation has a test file of its own in the same place,
or is named here with the test that covers it.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("flows", "lightlm/runs", "lightlm/versions", "lightlm/evaluation")

COVERED_BY = {
    "flows/tasks.py": "flows/test_train.py",
    "flows/cli/machine.py": "flows/cli/test_setup_session.py",
    "flows/cli/options.py": "flows/cli/test_help.py",
    "flows/cli/shape_editor.py": "flows/cli/test_setup_session.py",
    "flows/cli/checks/findings.py": "flows/cli/test_doctor.py",
    "flows/cli/checks/installation.py": "flows/cli/test_doctor.py",
    "flows/cli/checks/servers.py": "flows/cli/test_doctor.py",
    "flows/cli/checks/storage.py": "flows/cli/test_doctor.py",
    "flows/cli/commands/doctor.py": "flows/cli/test_doctor.py",
    "flows/cli/commands/export.py": "versions/test_export.py",
    "flows/cli/commands/look.py": "data/test_advice.py",
    "flows/cli/commands/report.py": "runs/test_report.py",
    "flows/cli/commands/retrain.py": "flows/test_retrain.py",
    "flows/cli/commands/runs.py": "runs/test_naming.py",
    "flows/cli/commands/service.py": "flows/service/test_lifecycle.py",
    "flows/cli/commands/setup.py": "flows/cli/test_setup_session.py",
    "flows/cli/commands/sync.py": "faults/test_prefect_outages.py",
    "flows/cli/commands/training.py": "flows/test_train.py",
    "flows/cli/commands/versions.py": "flows/cli/test_main.py",
    "flows/cli/commands/watch.py": "runs/test_watching.py",
    "flows/prefect_api/flow_session.py": "flows/prefect_api/test_artifacts.py",
    "flows/service/browser.py": "flows/service/test_lifecycle.py",
    "flows/service/plugin.py": "stack/test_stack.py",
    "flows/service/prefect_file.py": "flows/service/test_deployments.py",
    "flows/service/private_files.py": "flows/service/test_servers.py",
    "flows/service/record.py": "flows/service/test_keeper.py",
    "flows/service/schedules.py": "flows/service/test_deployments.py",
    "flows/service/status.py": "flows/service/test_keeper.py",
    "flows/service/work_pools.py": "flows/service/test_deployments.py",
    "lightlm/runs/champion.py": "flows/test_retrain.py",
    "lightlm/runs/finished.py": "runs/test_report.py",
    "lightlm/runs/history.py": "flows/test_train.py",
    "lightlm/runs/input_checks.py": "flows/cli/test_main.py",
    "lightlm/runs/orchestrator.py": "runs/test_stages.py",
    "lightlm/runs/recording.py": "flows/test_train.py",
    "lightlm/runs/results.py": "runs/test_stages.py",
    "lightlm/runs/retraining.py": "runs/test_naming.py",
    "lightlm/runs/session.py": "runs/test_stages.py",
    "lightlm/runs/stage_names.py": "runs/test_watching.py",
    "lightlm/runs/start.py": "flows/test_retrain.py",
    "lightlm/versions/text.py": "flows/test_generate.py",
}
"""Module -> the test file under tests/ that covers it. An entry that is not needed is an error."""


def list_untested() -> set[str]:
    """Return the modules without a test file of their own."""
    modules = [
        path
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if not path.name.startswith("__")
    ]
    names = {path.relative_to(ROOT).as_posix() for path in modules}
    return {name for name in names if not find_mirror(name).is_file()}


def find_mirror(module: str) -> Path:
    """Return the path of a module's own test file."""
    place = Path(module.removeprefix("lightlm/"))
    return ROOT / "tests" / place.with_name(f"test_{place.name}")


def test_every_module_has_a_test_file_of_its_own_or_one_that_covers_it() -> None:
    assert list_untested() == set(COVERED_BY)


def test_every_covering_test_file_is_there() -> None:
    missing = {name for name in COVERED_BY.values() if not (ROOT / "tests" / name).is_file()}
    assert missing == set()
