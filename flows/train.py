"""train-flow: text in, a registered, evaluated model version out, within the hours given."""

import getpass
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field

from flows.planning import describe_text
from flows.session import Session, open_session
from lightlm.budget.plan import Plan
from lightlm.budget.planner import Planner
from lightlm.budget.probe import MachineRate, measure_machine
from lightlm.budget.reserve import ClosingTimes
from lightlm.budget.scaling import choose_vocab_size, estimate_needed_bytes, usable_flops
from lightlm.budget.tiers import tier_of
from lightlm.data.shards import TokenShards
from lightlm.data.shards import tokenize_subset as tokenize
from lightlm.data.subset import TextSubset, safe_name
from lightlm.data.subset import materialize_subset as materialize
from lightlm.data.tokenizer import Tokenizer
from lightlm.data.tokenizer import prepare_tokenizer as prepare
from lightlm.errors import Interrupted, SystemCheckError, TrackingError
from lightlm.model.accounting import flops_per_token
from lightlm.params import Hours, Params, load_params
from lightlm.system import Device, SystemReport
from lightlm.system import check_system as check
from lightlm.tracking.recorder import RegistrationRequest
from lightlm.tracking.registry import ModelVersion
from lightlm.training.events import from_json
from lightlm.training.messages import TrainResult

STORY = {"cache_policy": NO_CACHE, "persist_result": False}
"""Of every task: what is worth keeping is in the store, under digests; Prefect keeps no copy."""


class RunSummary(BaseModel):
    """What a finished train-flow returns. Seconds by stage in `ledger`; `mfu` against the measured matrix rate."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    run_id: str
    model_name: str
    model_version: str
    aliases: list[str]
    promotion: str
    bits_per_byte: float
    score: dict[str, Any]
    budget_seconds: float
    elapsed_seconds: float
    ledger: dict[str, float]
    plan: dict[str, Any]
    tokens: int
    tokens_per_second: float
    mfu: float
    dataset: dict[str, Any]
    shape: str
    folder: str


def name_flow_run() -> str:
    """Return "train-0.1h-wikitext": what Prefect's pages show."""
    values = flow_run.parameters
    overrides = values.get("overrides") or {}
    params = load_params(
        values.get("preset", "base"), overrides, dataset=values.get("dataset"), hours=values.get("hours")
    )
    return name_run(params)


def name_run(params: Params) -> str:
    """Return "train-0.1h-wikitext"."""
    return f"train-{params.budget.hours:g}h-{safe_name(Path(params.dataset.source).stem)}"


def run_tags() -> dict[str, str]:
    """Return who, what and where of the run: MLflow's own tags, and the way to the flow run."""
    tags = {
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "lightlm train",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": read_git_commit(),
        "prefect.flow_run_id": str(flow_run.id or ""),
        "prefect.flow_run_url": str(flow_run.ui_url or ""),
        "lightlm.schema": "1",
    }
    return {name: value for name, value in tags.items() if value}


@flow(name="train-flow", flow_run_name=name_flow_run, persist_result=False)
def train_flow(
    hours: Annotated[
        Hours | None, Field(description="Wall clock of the whole run, in hours; empty: the preset's.")
    ] = None,
    dataset: Annotated[str | None, Field(description="Hub id, path, or python-docs; empty: the preset's.")] = None,
    preset: Annotated[str, Field(description="params/NAME.yaml, laid over params/base.yaml.")] = "base",
    overrides: Annotated[dict[str, Any] | None, Field(description='Single values, as {"model.num_layers": 4}.')] = None,
) -> RunSummary:
    """Train the best language model that `hours` allow on `dataset`, and register it in MLflow."""
    params = load_params(preset, overrides, dataset=dataset, hours=hours)
    with open_session(params, name_run(params), run_tags()) as session:
        system = check_system(session)
        machine = measure_matrix_rate(session, system)
        subset = materialize_subset(session, machine)
        tokenizer = prepare_tokenizer(session, subset, machine)
        shards = tokenize_subset(session, subset, tokenizer)
        plan = plan_budget(session, machine, shards)
        trained = train_model(session, plan, tokenizer, shards)
        score = evaluate_model(session, plan, trained, shards)
        version = register_model(session, plan, trained, score, subset, system)
        return summarize(session, plan, machine, trained, score, subset, version)


@task(name="Check the system", **STORY)
def check_system(session: Session) -> SystemReport:
    """Return the report of this machine; refuse to start where a check fails."""
    with session.stage("check", "Checking the system"):
        devices = [Device.model_validate(d) for d in session.worker.call("describe_devices")["devices"]]
        report = check(session.params, session.home, devices)
        session.draw_checks(report.checks)
        session.recorder.log_text(report.model_dump_json(indent=2), "system.json")
    if report.failed:
        raise SystemCheckError("; ".join(f"{c.name}: {c.message}; {c.fix}" for c in report.failed))
    return report


@task(name="Measure the matrix rate", **STORY)
def measure_matrix_rate(session: Session, system: SystemReport) -> MachineRate:
    """Return the device, the precision and the rate of matrix products that this run has."""
    with session.stage("probe", "Measuring this machine"):
        machine = measure_machine(session.params.training, system, session.worker)
    session.say(f"{machine.device}, {machine.dtype}: {machine.flops_per_second / 1e9:,.0f} GFLOP/s measured")
    return machine


@task(name="Materialize the data set's subset", **STORY)
def materialize_subset(session: Session, machine: MachineRate) -> TextSubset:
    """Return the documents that this budget can use, in the store."""
    with session.stage("data", "Reading the data set"):
        dataset = session.params.dataset
        tier = tier_of(session.params.budget.hours)
        if session.params.budget.planner == "tiers" and dataset.max_documents is None and tier.documents:
            dataset = dataset.model_copy(update={"max_documents": tier.documents})
        needed = estimate_needed_bytes(machine.flops_per_second, session.ledger.remaining_seconds)
        subset = materialize(dataset, needed_bytes=needed, report=session.say)
    session.say(subset.summary() + (" (from the store)" if subset.reused else ""))
    session.recorder.log_dataset(describe_dataset(subset))
    return subset


@task(name="Prepare the tokenizer", **STORY)
def prepare_tokenizer(session: Session, subset: TextSubset, machine: MachineRate) -> Tokenizer:
    """Return a tokenizer of the size that the budget suits, or the one named."""
    with session.stage("tokenizer", "Preparing the tokenizer"):
        flops = usable_flops(machine.flops_per_second, session.ledger.remaining_seconds)
        size = session.params.tokenizer.vocab_size or choose_vocab_size(flops, subset.num_bytes)
        tokenizer = prepare(session.params.tokenizer, subset, size, report=session.say)
    reused = ", from the store" if tokenizer.reused else ""
    session.say(f"Tokenizer: {tokenizer.vocab_size:,} entries{reused}")
    return tokenizer


@task(name="Tokenize to cached shards", **STORY)
def tokenize_subset(session: Session, subset: TextSubset, tokenizer: Tokenizer) -> TokenShards:
    """Return the token shards of subset and tokenizer."""
    with session.stage("shards", "Tokenizing to shards"):
        shards = tokenize(subset, tokenizer, report=session.say)
    reused = "Reusing" if shards.reused else "Wrote"
    session.say(f"{reused} shards {shards.fingerprint}: {shards.num_train_tokens:,} training tokens")
    return shards


@task(name="Plan the budget", **STORY)
def plan_budget(session: Session, machine: MachineRate, shards: TokenShards) -> Plan:
    """Return the plan, made from timed shapes; shown, saved and recorded."""
    with session.stage("probe", "Timing shapes and planning"):
        closing = ClosingTimes(session.home).estimate()
        planner = Planner(
            session.params, describe_text(shards), machine, lambda: session.ledger.remaining_seconds, closing
        )
        plan, probe = planner.plan(session.worker)
    session.draw_plan(plan)
    session.recorder.log_text(plan.model_dump_json(indent=2), "plan.json")
    session.recorder.log_text(probe.model_dump_json(indent=2), "probe.json")
    session.recorder.log_params(session.params.flatten() | flatten_plan(plan))
    return plan


@task(name="Train the model", **STORY)
def train_model(session: Session, plan: Plan, tokenizer: Tokenizer, shards: TokenShards) -> TrainResult:
    """Return what training reached before the time kept for the score and the registration begins."""
    with session.stage("training", f"Training {plan.summary()}"):
        request = {
            "run_folder": session.folder,
            "shards_folder": shards.folder,
            "tokenizer_folder": tokenizer.folder,
            "model": plan.model.model_dump(),
            "trainer": plan.trainer.model_dump(),
            "deadline": session.ledger.deadline - plan.reserve_seconds,
            "validation_tokens": plan.validation_tokens,
            "sample_tokens": plan.sample_tokens,
            "keep_best": plan.keep_best,
            "generation": generation_defaults(session),
        }
        result = follow_training(session, plan, request)
    trained = TrainResult.model_validate(result)
    session.ledger.split("training", session.facts["seconds"])
    if trained.is_stopped:
        raise Interrupted(f"stopped at step {trained.step}; checkpoint and model are in {session.folder}")
    return trained


@task(name="Score the held-out text", **STORY)
def evaluate_model(session: Session, plan: Plan, trained: TrainResult, shards: TokenShards) -> dict[str, Any]:
    """Return the Score of the model's folder on the whole held-out text, or on what the time allows."""
    with session.stage("final evaluation", "Scoring the held-out text"):
        seconds = session.ledger.remaining_seconds - ClosingTimes(session.home).estimate()
        score = session.worker.call(
            "evaluate",
            folder=str(trained.folder),
            shards_folder=str(shards.folder),
            trainer=plan.trainer.model_dump(),
            max_bytes=session.params.evaluation.max_bytes,
            deadline=session.ledger.clock() + max(seconds, plan.evaluation_seconds, 0.5),
        )
    session.facts["scored_at"] = session.ledger.clock()
    session.recorder.log_metrics({"evaluation/bits_per_byte": score["bits_per_byte"]}, trained.step)
    return score


@task(name="Register the model version", **STORY)
def register_model(
    session: Session, plan: Plan, trained: TrainResult, score: dict[str, Any], subset: TextSubset, system: SystemReport
) -> ModelVersion:
    """Return the version that MLflow's registry gave the model."""
    with session.stage("registration", "Registering the model version"):
        params = session.params
        request = RegistrationRequest(
            hf_folder=trained.folder,
            model_name=params.tracking.model_name,
            promote=params.tracking.promote,
            description=describe_version(session, plan, score, subset),
            tags=version_tags(session, plan, trained, score, subset, system),
            bits_per_byte=score["bits_per_byte"],
            text_sha256=score["text_sha256"],
            sampling=generation_defaults(session),
        )
        record_ledger(session, plan, trained)
        session.recorder.describe(request.description)
        session.recorder.register(request)
        session.recorder.finish("FINISHED")
        version = session.outbox.wait_for_version(timeout=60)
    if version is None:
        raise TrackingError(
            f"MLflow did not register the model within 60 s; it is kept in {trained.folder} and registered by the next run"
        )
    return version


def follow_training(session: Session, plan: Plan, request: dict[str, Any]) -> dict[str, Any]:
    """Return the worker's result; pass its events to the recorder and the display."""
    seconds = {"validation": 0.0, "checkpoint": 0.0}
    session.facts["seconds"] = seconds
    try:
        for record in session.worker.train(request):
            if "result" in record:
                return record["result"]
            session.progress.show(from_json(record))
            seconds["validation"] += record["seconds"] if record["event"] == "Validated" else 0.0
            seconds["checkpoint"] += record["seconds"] if record["event"] == "Checkpointed" else 0.0
            record_event(session, plan, record)
    except KeyboardInterrupt:
        session.worker.interrupt()
        raise Interrupted(f"stopped by Ctrl-C; what was reached is in {session.folder}") from None
    raise AssertionError("a job ends with its result")


def record_event(session: Session, plan: Plan, record: dict[str, Any]) -> None:
    """Put a training event's numbers and texts into the run's record."""
    recorder, kind = session.recorder, record["event"]
    if kind == "StepDone":
        speed = record["batch_tokens"] / max(record["seconds"], 1e-9)
        metrics = {
            "train/loss": record["loss"],
            "train/gradient_norm": record["gradient_norm"],
            "train/learning_rate_factor": record["learning_rate_factor"],
            "train/tokens": record["total_tokens"],
            "throughput/tokens_per_second": speed,
            "throughput/mfu": mfu(plan, speed),
            "throughput/waited_fraction": record["waited_seconds"] / max(record["seconds"], 1e-9),
            "budget/progress": record["progress"],
            "budget/elapsed_seconds": session.ledger.elapsed_seconds,
        }
        if record["balance_loss"] is not None:
            metrics["train/balance_loss"] = record["balance_loss"]
        recorder.log_metrics(metrics, record["step"])
    elif kind == "Validated":
        recorder.log_metrics({"validation/bits_per_byte": record["bits_per_byte"]}, record["step"])
    elif kind == "Sampled":
        text = f"{record['prompt']}{record['text']}"
        recorder.log_text(text, f"samples/step-{record['step']:07d}.txt")


def record_ledger(session: Session, plan: Plan, trained: TrainResult) -> None:
    """Put the seconds by stage, and what memory later plans learn from, into the run's record."""
    ledger = session.ledger
    seconds = {f"budget/{name.replace(' ', '_')}_seconds": value for name, value in ledger.entries.items()}
    session.recorder.log_metrics(
        seconds
        | {
            "budget/hours": session.params.budget.hours,
            "budget/final_elapsed_seconds": ledger.elapsed_seconds,
            "plan/predicted_bits_per_byte": plan.predicted_bits_per_byte,
            "plan/expected_tokens": plan.expected_tokens,
            "plan/num_parameters": plan.num_parameters,
            "throughput/mean_tokens_per_second": trained.tokens_per_second,
            "throughput/mean_mfu": mfu(plan, trained.tokens_per_second),
        },
        trained.step,
    )


def summarize(
    session: Session,
    plan: Plan,
    machine: MachineRate,
    trained: TrainResult,
    score: dict[str, Any],
    subset: TextSubset,
    version: ModelVersion,
) -> RunSummary:
    """Return the flow's result; remember how long the end of this run took."""
    ledger = session.ledger
    ClosingTimes(session.home).record(ledger.clock() - session.facts["scored_at"] + END_SECONDS)
    entries = {name: round(seconds, 3) for name, seconds in ledger.close().items()}
    return RunSummary(
        run_id=version.run_id,
        model_name=version.name,
        model_version=version.version,
        aliases=list(version.aliases),
        promotion=version.tags.get("lightlm.promotion", ""),
        bits_per_byte=score["bits_per_byte"],
        score=score,
        budget_seconds=ledger.budget_seconds,
        elapsed_seconds=round(ledger.elapsed_seconds, 3),
        ledger=entries,
        plan=plan.model_dump(mode="json"),
        tokens=trained.total_tokens,
        tokens_per_second=trained.tokens_per_second,
        mfu=mfu(plan, trained.tokens_per_second),
        dataset=describe_dataset(subset),
        shape=plan.summary(),
        folder=str(trained.folder),
    )


END_SECONDS = 0.7
"""From the flow's return to the end of the process: Prefect's last states, exit handlers."""


def mfu(plan: Plan, tokens_per_second: float) -> float:
    """Return the share of the measured matrix rate that training reached."""
    return flops_per_token(plan.model) * tokens_per_second / plan.matrix_flops_per_second


def generation_defaults(session: Session) -> dict[str, float | int]:
    """Return how text is sampled from the model by default."""
    generation = session.params.generation
    return {
        "max_new_tokens": generation.max_new_tokens,
        "temperature": generation.temperature,
        "top_k": generation.top_k,
        "top_p": generation.top_p,
        "repetition_penalty": generation.repetition_penalty,
    }


def flatten_plan(plan: Plan) -> dict[str, Any]:
    """Return the plan's model and trainer under dotted names."""
    values = {f"plan.model.{name}": value for name, value in plan.model.model_dump().items()}
    return values | {f"plan.trainer.{name}": value for name, value in plan.trainer.model_dump().items()}


def describe_dataset(subset: TextSubset) -> dict[str, Any]:
    """Return what is told of the data: name, digest, counts."""
    return {
        "name": subset.name,
        "source": subset.source,
        "digest": subset.fingerprint,
        "source_digest": subset.source_digest,
        "num_documents": subset.num_documents,
        "total_documents": subset.total_documents,
        "num_bytes": subset.num_bytes,
        "num_validation_documents": subset.num_validation_documents,
        "num_validation_bytes": subset.num_validation_bytes,
        "validation_sha256": subset.validation_sha256,
        "num_duplicates_removed": subset.num_duplicates_removed,
        "notice": subset.notice,
    }


def describe_version(session: Session, plan: Plan, score: dict[str, Any], subset: TextSubset) -> str:
    """Return the model version's description, in Markdown."""
    part = "the whole" if score["is_whole"] else "a prefix of the"
    return (
        f"**{score['bits_per_byte']:.4f} bits per byte** on {part} held-out text of {subset.name} "
        f"({score['num_bytes']:,} bytes, SHA-256 `{score['text_sha256'][:16]}...`).\n\n"
        f"{plan.summary()}; {plan.num_parameters:,} parameters, trained from scratch in "
        f"{session.params.budget.hours:g} h on {plan.trainer.device} ({plan.trainer.dtype})."
    )


def version_tags(
    session: Session, plan: Plan, trained: TrainResult, score: dict[str, Any], subset: TextSubset, system: SystemReport
) -> dict[str, str]:
    """Return what a version says of its origin."""
    tags = {
        "bits_per_byte": f"{score['bits_per_byte']:.5f}",
        "text_sha256": score["text_sha256"],
        "score_is_whole": str(score["is_whole"]).lower(),
        "dataset": subset.name,
        "dataset_digest": subset.fingerprint,
        "num_parameters": str(plan.num_parameters),
        "tokens": str(trained.total_tokens),
        "hours": f"{session.params.budget.hours:g}",
        "hardware_id": system.hardware_id,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": read_git_commit(),
        "prefect_flow_run_id": str(flow_run.id or ""),
        "prefect_flow_run_url": str(flow_run.ui_url or ""),
    }
    return {name: value for name, value in tags.items() if value}


def read_git_commit() -> str:
    """Return the commit of the code that runs, or "" where it is no checkout."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()
