"""train-flow through the front door: text in, a registered version out, whatever happens in
between.
"""

import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lightlm.tracking.tags import unpack_tags
from tests.command_line import HOSTILE, SECONDS, TINY, CommandLine, Ended, Trained, settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

KEYS = {
    *(
        "run_id",
        "model_name",
        "model_version",
        "bits_per_byte",
        "budget_seconds",
        "elapsed_seconds",
        "ledger",
    ),
    *("plan", "tokens", "tokens_per_second", "mfu", "dataset"),
}
OPEN_WITHOUT_US = """
import sys
sys.modules["lightlm"] = sys.modules["lightlm_flows"] = None  # whoever imports these from now on fails
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
prompt = tokenizer("The quiet river", return_tensors="pt")
ids = model.generate(**prompt, do_sample=False, max_new_tokens=12, min_new_tokens=12)
sys.stdout.buffer.write(tokenizer.decode(ids[0, prompt["input_ids"].shape[1]:]).encode())
"""


@pytest.fixture(scope="module")
def client(trained: Trained) -> "MlflowClient":
    """Return MLflow's client of the home's database."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{trained.lightlm.home}/mlflow.db")


@pytest.fixture(scope="module")
def run(trained: Trained, client: "MlflowClient") -> "Run":
    """Return MLflow's record of the first run."""
    return client.get_run(trained.summary["run_id"])


@pytest.fixture(scope="module")
def version(trained: Trained, client: "MlflowClient") -> "ModelVersion":
    """Return MLflow's record of the first run's model."""
    return client.get_model_version("stories", trained.summary["model_version"])


@pytest.fixture(scope="module")
def second(trained: Trained) -> Ended:
    """Return a run of 5 s on the same text, for a person who reads a pipe."""
    return trained.lightlm(
        "train", "--hours", "5s", "--dataset", trained.text, *settings(tokenizer__vocab_size=512)
    )


def wait_for_line(command: "subprocess.Popen[str]", words: str) -> list[str]:
    """Return the lines that a command says until one holds `words`."""
    assert command.stderr is not None
    lines: list[str] = []
    for line in command.stderr:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("".join(lines))


def wait_until_alone(lightlm: CommandLine) -> list[str]:
    """Return what is left of a home's processes; waiting only bounds how long their ends
    may take.
    """
    deadline = time.monotonic() + 20
    while (left := lightlm.list_processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [" ".join(process.cmdline()) for process in left]


def test_a_run_prints_one_json_object_with_all_that_a_script_asks_for(trained: Trained) -> None:
    summary = trained.summary
    assert summary.keys() >= KEYS
    assert (summary["model_name"], summary["model_version"]) == ("stories", "1")
    assert summary["budget_seconds"] == pytest.approx(72)
    assert summary["tokens"] > 0
    assert summary["tokens_per_second"] > 0
    assert 0 < summary["mfu"] < 2
    assert summary["tokens"] % summary["plan"]["trainer"]["batch_tokens"] == 0
    assert set(summary["aliases"]) == {"champion", "challenger"}


def test_the_ledger_accounts_for_every_second(trained: Trained) -> None:
    ledger = trained.summary["ledger"]
    assert sum(ledger.values()) == pytest.approx(trained.summary["elapsed_seconds"], rel=0.01)
    assert ledger.keys() >= {
        "start-up",
        "data",
        "tokenizer",
        "shards",
        "probe",
        "training",
        "registration",
    }

    assert min(ledger.values()) >= 0


def test_what_a_run_tokenized_stands_in_its_shared_store_and_its_time_in_the_ledger(
    trained: Trained,
) -> None:
    there = sorted(
        path.relative_to(trained.shared).parts[0]
        for path in trained.shared.glob("*/*/manifest.json")
    )
    assert there == ["shards", "subsets", "tokenizers"]
    assert "Uploaded shards" in trained.run.err
    assert trained.summary["ledger"]["shared store"] > 0


def test_a_model_that_read_the_text_beats_guessing_bytes(trained: Trained) -> None:
    assert 0 < trained.summary["bits_per_byte"] < 8


def test_the_score_names_the_text_that_was_held_out(trained: Trained) -> None:
    score = trained.summary["score"]
    dataset = trained.summary["dataset"]
    assert score["num_bytes"] <= dataset["num_validation_bytes"]
    assert score["is_whole"] == (score["text_sha256"] == dataset["validation_sha256"])
    assert dataset["num_bytes"] + dataset["num_validation_bytes"] == trained.text.stat().st_size


def test_progress_goes_to_standard_error_in_plain_lines(trained: Trained) -> None:
    assert "Reading the data set" in trained.run.err
    assert "Registering the model version" in trained.run.err
    assert not [c for c in trained.run.err + trained.run.out if c < " " and c != "\n"]
    assert "Traceback" not in trained.run.err


def test_mlflow_has_the_params_the_plan_and_the_metrics_of_the_run(
    trained: Trained, run: "Run"
) -> None:
    params = run.data.params
    metrics = run.data.metrics
    assert run.info.status == "FINISHED"
    assert float(params["budget.hours"]) == 0.02
    assert params["tokenizer.vocab_size"] == "512"
    assert int(params["plan.model.num_layers"]) == trained.summary["plan"]["model"]["num_layers"]
    assert metrics["evaluation/bits_per_byte"] == pytest.approx(trained.summary["bits_per_byte"])
    assert metrics.keys() >= {
        *(
            "train/loss",
            "train/learning_rate",
            "validation/bits_per_byte",
            "throughput/tokens_per_second",
            "throughput/mfu",
        ),
        *("budget/elapsed_seconds", "wall_clock/training_seconds", "plan/predicted_bits_per_byte"),
    }

    assert any(name.startswith("system/") for name in metrics)


def test_the_loss_in_mlflow_falls(run: "Run", client: "MlflowClient") -> None:
    losses = sorted(
        client.get_metric_history(run.info.run_id, "train/loss"), key=lambda metric: metric.step
    )
    assert len(losses) >= 2
    assert losses[-1].value < losses[0].value <= 1.1 * math.log(512)


def test_mlflow_has_the_data_set_and_where_the_run_came_from(trained: Trained, run: "Run") -> None:
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.digest == trained.summary["dataset"]["digest"]
    assert given.dataset.name == "stories"
    tags = run.data.tags
    assert tags["lightlm.run_key"] == Path(trained.summary["folder"]).parent.name
    assert tags["prefect.flow_run_id"]
    assert tags["mlflow.runName"] == "train-0.02h-stories"
    assert f"{trained.summary['bits_per_byte']:.4f} bits per byte" in tags["mlflow.note.content"]


def test_mlflow_has_the_reports_and_the_loss_plot(run: "Run", client: "MlflowClient") -> None:
    paths = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert paths >= {"system.json", "plan.json", "probe.json", "loss.png"}


def test_the_version_says_its_score_and_its_origin(
    trained: Trained, version: "ModelVersion"
) -> None:
    tags = unpack_tags(version.tags)
    assert float(tags["bits_per_byte"]) == pytest.approx(trained.summary["bits_per_byte"], abs=1e-5)
    assert tags["text_sha256"] == trained.summary["score"]["text_sha256"]
    assert tags["dataset_digest"] == trained.summary["dataset"]["digest"]
    assert int(tags["num_parameters"]) == trained.summary["plan"]["num_parameters"]
    assert tags.keys() >= {
        "prefect_flow_run_id",
        "prefect_flow_run_url",
        "hardware_id",
        "lightlm.manifest_sha256",
    }

    assert "bits per byte" in version.description


def test_a_version_has_few_tags_for_a_person_to_read(version: "ModelVersion") -> None:
    assert set(version.tags) == {
        *("bits_per_byte", "dataset", "data", "num_parameters", "hours", "started_from"),
        *("lightlm.promotion", "lightlm.dataset", "lightlm.record"),
    }


def test_the_first_version_is_champion_and_models_lists_it(trained: Trained) -> None:
    (listed,) = trained.models.json["models"]
    assert (listed["name"], listed["version"]) == ("stories", "1")
    assert set(listed["aliases"]) == {"champion", "challenger"}
    assert listed["run_id"] == trained.summary["run_id"]


def test_nothing_is_left_running_or_lying_about(trained: Trained) -> None:
    assert wait_until_alone(trained.lightlm) == []
    assert {path.stem for path in trained.lightlm.folder.iterdir()} == set(HOSTILE), (
        "no more than there was"
    )


@pytest.mark.slow
def test_transformers_alone_opens_the_downloaded_model_and_writes_the_same_text(
    trained: Trained, tmp_path: Path
) -> None:
    options = ["--model", "models:/stories/1", "--temperature", 0, "--max-new-tokens", 12, "--json"]
    ours = trained.lightlm("generate", "The quiet river", *options).json
    folder = trained.lightlm.home / "models" / "stories" / "1"
    alone = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT_US, str(folder)],
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )

    assert alone.returncode == 0, alone.stderr.decode()
    assert alone.stdout.decode() == ours["text"]
    assert ours["num_new_tokens"] == 12


def test_a_second_run_reuses_the_shards_and_says_so(second: Ended) -> None:
    assert second.code == 0, second.err
    assert "Reusing shards" in second.err
    assert "Wrote shards" not in second.err


def test_a_budget_below_the_floor_trains_the_ultra_fast_tier_says_so_and_registers_it(
    second: Ended, trained: Trained, client: "MlflowClient"
) -> None:
    assert "the ultra-fast tier is trained" in second.err
    assert "stories version 2" in second.out
    assert "stories version 2:" not in second.err
    assert client.get_model_version("stories", "2").run_id != trained.summary["run_id"]


def test_a_reader_of_a_pipe_sees_no_control_characters(second: Ended) -> None:
    assert not [c for c in second.err + second.out if c < " " and c != "\n"]


@pytest.mark.slow
def test_the_same_seed_and_steps_give_the_same_score_and_quiet_says_nothing(
    trained: Trained,
) -> None:
    options = [*TINY, *settings(budget__max_steps=6, training__seed=3)]
    command = ["train", "--hours", 1, "--dataset", trained.text, *options, "--json", "--quiet"]
    one = trained.lightlm(*command)
    other = trained.lightlm(*command)
    assert one.json["bits_per_byte"] == other.json["bits_per_byte"]
    assert one.err == other.err == ""
    plan = one.json["plan"]
    assert (plan["planner"], plan["model"]["num_layers"], plan["model"]["model_dim"]) == (
        "manual",
        1,
        32,
    )

    assert one.json["tokens"] == 6 * 512
    assert one.json["score"]["is_whole"]
    assert one.json["score"]["text_sha256"] == trained.summary["dataset"]["validation_sha256"]


@pytest.mark.slow
def test_the_documented_tier_trains_a_mixture_of_experts_on_twenty_documents(
    trained: Trained, documents: Path
) -> None:
    options = settings(
        budget__planner="tiers",
        model__mixture_of_experts="true",
        model__num_experts=4,
        training__num_validations=1,
        training__num_threads=1,
        tracking__model_name="experts",
    )

    run = trained.lightlm(
        "train",
        "--hours",
        0.006,
        "--dataset",
        documents,
        "--text-column",
        "body",
        *options,
        "--json",
    )

    assert "Using subset: 20 of 200 documents" in run.err
    assert "ultra-fast testing" in run.err
    assert run.json["model_name"] == "experts"
    model = run.json["plan"]["model"]
    assert (model["num_layers"], model["model_dim"], model["num_heads"]) == (1, 64, 4)
    assert (model["num_experts"], model["num_active_experts"]) == (4, 2)
    assert run.json["tokens"] == 5 * run.json["plan"]["trainer"]["batch_tokens"]
    assert 0 < run.json["bits_per_byte"] < 8


@pytest.mark.faults
def test_a_killed_worker_costs_a_restart_and_not_the_run(trained: Trained) -> None:
    options = [*TINY, *settings(budget__max_steps=400, training__num_checkpoints=10)]
    command = trained.lightlm.start(
        "train", "--hours", 1, "--dataset", trained.text, *options, "--json"
    )
    wait_for_line(command, "checkpoint of step")
    (worker,) = trained.lightlm.list_processes("lightlm.training.worker")
    worker.kill()
    out, err = command.communicate(timeout=SECONDS)
    summary = Ended(command.returncode, out, err).json
    assert "the worker died" in err
    assert "training resumes at step" in err
    assert summary["tokens"] == 400 * 512
    assert summary["model_version"]
    assert wait_until_alone(trained.lightlm) == []


@pytest.mark.slow
def test_a_run_killed_near_its_end_is_finished_without_waiting_for_prefect(
    make_command_line: Callable[[], CommandLine], trained: Trained
) -> None:
    lightlm = make_command_line()
    options = ["--hours", "14s", "--dataset", trained.text]
    command = lightlm.start("train", *options)
    wait_for_line(command, "loss")
    command.kill()
    command.communicate(timeout=SECONDS)
    ended = lightlm("train", *options)
    assert ended.code == 0, ended.err
    assert "no time is left to wait for Prefect" in ended.err
    assert "Continuing the unfinished run" in ended.err
    assert "version 1" in ended.out
    assert wait_until_alone(lightlm) == []


def test_ctrl_c_keeps_what_was_reached_and_leaves_no_process(
    trained: Trained, client: "MlflowClient"
) -> None:
    options = [*TINY, *settings(budget__max_steps=1_000_000)]
    command = trained.lightlm.start(
        "train", "--hours", 1, "--dataset", trained.text, *options, "--json"
    )
    wait_for_line(command, "loss")
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=SECONDS)
    assert (command.returncode, out) == (130, "")
    last = err.splitlines()[-1]
    assert last.startswith(
        "lightlm: stopped; run the same command again to go on (what was reached is in "
    )

    assert "Traceback" not in err
    assert wait_until_alone(trained.lightlm) == []
    folder = Path(last.rpartition(" in ")[2].rstrip(")"))
    assert (folder / "model" / "model.safetensors").is_file()
    assert list((folder / "checkpoints").iterdir())
    (stopped,) = client.search_runs(["1"], f"tags.`lightlm.run_key` = '{folder.name}'")
    assert stopped.info.status == "KILLED"


def test_ctrl_c_while_all_starts_leaves_no_process_either(
    make_command_line: Callable[[], CommandLine],
) -> None:
    lightlm = make_command_line()
    command = lightlm.start("train", "--dataset", "python-docs")
    while not lightlm.list_processes("lightlm_flows.prefect_api.embedd") and command.poll() is None:
        time.sleep(0.02)
    os.kill(command.pid, signal.SIGINT)
    _, err = command.communicate(timeout=SECONDS)
    assert command.returncode == 130
    assert err.endswith("lightlm: stopped; run the same command again to go on\n")
    assert wait_until_alone(lightlm) == []


def held_out_text(trained: Trained) -> bytes:
    """Return the held-out text that the first run was scored on, from the home's shards."""
    from lightlm.data.shards import open_shards

    whole = [
        open_shards(folder).validation_text()
        for folder in (trained.lightlm.home / "store" / "shards").iterdir()
        if (folder / "manifest.json").is_file()
    ]
    size = trained.summary["score"]["num_bytes"]
    digest = trained.summary["score"]["text_sha256"]
    (text,) = {text[:size] for text in whole if hashlib.sha256(text[:size]).hexdigest() == digest}
    return text


def test_evaluate_gives_the_runs_own_score_on_the_same_text(
    trained: Trained, tmp_path: Path
) -> None:
    path = tmp_path / "held-out.txt"
    path.write_bytes(held_out_text(trained))
    score = trained.lightlm.here(
        "evaluate", "--model", "models:/stories/1", "--text", path, "--json"
    ).json
    assert score.keys() >= {
        "bits_per_byte",
        "num_bytes",
        "num_tokens",
        "text_sha256",
        "model_version",
    }

    assert score["text_sha256"] == trained.summary["score"]["text_sha256"]
    assert score["num_bytes"] == trained.summary["score"]["num_bytes"]
    assert score["bits_per_byte"] == pytest.approx(trained.summary["bits_per_byte"], rel=0.01)
