"""tests/ mirrors the tree: each module has a test file of its own in the same place, or is named here
with the test that covers it.
"""

from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

COVERED_BY = {
    "flows/tasks.py": "flows/test_train.py",
    "flows/cli/machine.py": "flows/cli/test_setup_session.py",
    "flows/cli/options.py": "flows/cli/test_help.py",
    "flows/cli/shape_editor.py": "flows/cli/test_setup_session.py",
    "flows/cli/checks/installation.py": "flows/cli/test_doctor.py",
    "flows/cli/checks/servers.py": "flows/cli/test_doctor.py",
    "flows/cli/checks/storage.py": "flows/cli/test_doctor.py",
    "flows/cli/commands/bases.py": "flows/test_start.py",
    "flows/cli/commands/doctor.py": "flows/cli/test_doctor.py",
    "flows/cli/commands/export.py": "versions/test_export.py",
    "flows/cli/commands/look.py": "data/test_advice.py",
    "flows/cli/commands/report.py": "runs/test_report.py",
    "flows/cli/commands/retrain.py": "flows/test_retrain.py",
    "flows/cli/commands/runs.py": "runs/test_naming.py",
    "flows/cli/commands/serve.py": "flows/service/test_api_key.py",
    "flows/cli/commands/service.py": "flows/service/test_lifecycle.py",
    "flows/cli/commands/setup.py": "flows/cli/test_setup_session.py",
    "flows/cli/commands/studio.py": "studio/test_server.py",
    "flows/cli/commands/sync.py": "faults/test_prefect_outages.py",
    "flows/cli/commands/tokenize.py": "flows/cli/test_tokenize.py",
    "flows/cli/commands/training.py": "flows/test_train.py",
    "flows/cli/commands/versions.py": "flows/cli/test_main.py",
    "flows/cli/commands/watch.py": "runs/test_watching.py",
    "flows/service/browser.py": "flows/service/test_lifecycle.py",
    "flows/service/plugin.py": "stack/test_stack.py",
    "flows/service/prefect_file.py": "flows/service/test_deployments.py",
    "flows/service/private_files.py": "flows/service/test_servers.py",
    "flows/service/schedules.py": "flows/service/test_deployments.py",
    "flows/service/status.py": "flows/service/test_keeper.py",
    "flows/service/work_pools.py": "flows/service/test_deployments.py",
    "lightlm/bases/pretrained.py": "bases/test_folder.py",
    "lightlm/bases/hub.py": "bases/test_source.py",
    "lightlm/bases/vocabulary.py": "bases/test_gguf_file.py",
    "lightlm/bases/weights.py": "bases/test_folder.py",
    "lightlm/runs/base_start.py": "flows/test_start.py",
    "lightlm/runs/counting.py": "runs/test_stages.py",
    "lightlm/runs/finished.py": "runs/test_report.py",
    "lightlm/runs/input_checks.py": "flows/cli/test_main.py",
    "lightlm/runs/orchestrator.py": "runs/test_stages.py",
    "lightlm/runs/recording.py": "flows/test_train.py",
    "lightlm/runs/results.py": "runs/test_stages.py",
    "lightlm/runs/retraining.py": "runs/test_naming.py",
    "lightlm/runs/launch.py": "flows/cli/test_signals.py",
    "lightlm/runs/session.py": "runs/test_stages.py",
    "lightlm/runs/stage_names.py": "runs/test_watching.py",
    "lightlm/runs/start.py": "flows/test_retrain.py",
    "lightlm/runs/texts.py": "runs/test_several_texts.py",
    "lightlm/versions/harness_process.py": "versions/test_harness.py",
    "lightlm/versions/text.py": "flows/test_generate.py",
    "lightlm/__main__.py": "packaging/test_metadata.py",
    "lightlm/api.py": "tracking/test_api.py",
    "lightlm/errors.py": "flows/cli/test_main.py",
    "lightlm/json_object.py": "test_child_process.py",
    "lightlm/budget/calibration.py": "budget/test_scaling.py",
    "lightlm/budget/devices.py": "budget/test_memory.py",
    "lightlm/budget/ranking.py": "budget/test_planner.py",
    "lightlm/console/bases.py": "flows/test_start.py",
    "lightlm/budget/tuning.py": "budget/test_transfer.py",
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
    "lightlm/model/low_rank.py": "model/test_adapters.py",
    "lightlm/model/memory.py": "budget/test_memory.py",
    "lightlm/model/packed_products.py": "model/test_packed.py",
    "lightlm/model/tensors.py": "model/test_transformer.py",
    "lightlm/serving/*": "serving/test_server.py",
    "lightlm/studio/*": "studio/test_app.py",
    "lightlm/ngram/*": "training/test_mixing.py",
    "lightlm/tracking/mlflow_server.py": "flows/service/test_servers_exposure.py",
    "lightlm/tracking/outbox_process.py": "tracking/test_outbox.py",
    "lightlm/tracking/*": "tracking/test_shipper.py",
    "lightlm/training/*": "training/test_run.py",
}
"""Module, or pattern of modules -> the test file under tests/ that covers it; the first that fits
counts. An entry that is not needed is an error.
"""


def list_untested() -> set[str]:
    """Return the modules without a test file of their own."""
    modules = [path for room in ("flows", "lightlm") for path in (ROOT / room).rglob("*.py")]
    names = {path.relative_to(ROOT).as_posix() for path in modules if path.name != "__init__.py"}
    names.discard("flows/cli/__main__.py")  # lightlm/__main__.py under another name
    return {name for name in names if not find_mirror(name).is_file()}


def find_mirror(module: str) -> Path:
    """Return the path of a module's own test file."""
    place = Path(module.removeprefix("lightlm/"))
    return ROOT / "tests" / place.with_name(f"test_{place.name}")


def find_entry(module: str) -> str | None:
    """Return the entry of COVERED_BY that counts for a module."""
    return next((entry for entry in COVERED_BY if fnmatch(module, entry)), None)


def test_every_module_has_a_test_file_of_its_own_or_one_that_covers_it() -> None:
    assert {module for module in list_untested() if find_entry(module) is None} == set()


def test_every_entry_is_needed_and_its_test_file_is_there() -> None:
    assert set(COVERED_BY) - {find_entry(module) for module in list_untested()} == set()
    missing = {name for name in COVERED_BY.values() if not (ROOT / "tests" / name).is_file()}
    assert missing == set()
