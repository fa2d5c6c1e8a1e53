"""What a train-flow tells of itself: metrics, params, tags and descriptions, for the
run's record.
"""

import getpass
import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightlm.budget.plan import Plan
from lightlm.data.subset import TextSubset
from lightlm.model.accounting import flops_per_token
from lightlm.runs.champion import Champion, compare_with_champion
from lightlm.runs.naming import describe_text, find_model_name, name_text
from lightlm.runs.orchestrator import FlowRun
from lightlm.runs.pages import describe_ledger, keep_sample, show_decision, show_samples
from lightlm.runs.session import LAUNCH, LOGGER, Session
from lightlm.runs.summary import RunSummary
from lightlm.store.commit import write_file
from lightlm.system import SystemReport
from lightlm.tracking.recorder import RegistrationRequest
from lightlm.tracking.registry import PROMOTION_TAG, ModelVersion
from lightlm.tracking.tags import DATA_TAG, LEARNT_TAG
from lightlm.training.messages import TrainResult

MOST_DATA_CHARACTERS = 2000
"""Characters of a version's tag of its data."""

MOST_SUBSETS = 200
"""Fingerprints that a version's tag lists: MLflow takes 5,000 characters on every database."""


def run_tags(flow_run: FlowRun, command: str) -> dict[str, str]:
    """Return who, what and where of the run: MLflow's own tags, and the way to the flow run."""
    tags = {
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": command,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": read_git_commit(),
        "prefect.flow_run_id": flow_run.id,
        "prefect.flow_run_url": flow_run.url,
        "lightlm.schema": "1",
    }
    return {name: value for name, value in tags.items() if value}


def record_event(session: Session, plan: Plan, record: dict[str, Any]) -> None:
    """Put a training event's numbers and texts into the run's record."""
    recorder = session.recorder
    kind = record["event"]
    session.page.progress(record["progress"])
    keep_sample(session, record)

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
            # 1 where all experts are chosen equally often; num_experts over num_active_experts
            # where always the same.
            metrics["train/expert_imbalance"] = (
                record["balance_loss"] / plan.model.num_active_experts
            )
        recorder.log_metrics(metrics, record["step"])
    elif kind == "Validated":
        recorder.log_metrics({"validation/bits_per_byte": record["bits_per_byte"]}, record["step"])
        LOGGER.info(
            "%.0f %% of the time, step %d: %.3f bits per byte held out",
            100 * record["progress"],
            record["step"],
            record["bits_per_byte"],
        )
    elif kind == "Sampled":
        text = f"{record['prompt']}{record['text']}"
        recorder.log_text(text, f"samples/step-{record['step']:07d}.txt")


def record_ledger(session: Session, plan: Plan, trained: TrainResult) -> None:
    """Put the seconds by stage, and what memory later plans learn from, into the run's record."""
    ledger = session.ledger
    seconds = {
        f"wall_clock/{name.replace(' ', '_')}_seconds": value
        for name, value in ledger.entries.items()
    }
    session.recorder.log_metrics(
        seconds
        | {
            "wall_clock/hours": session.params.budget.hours,
            "wall_clock/final_elapsed_seconds": ledger.elapsed_seconds,
            "plan/predicted_bits_per_byte": plan.predicted_bits_per_byte,
            "plan/expected_tokens": plan.expected_tokens,
            "plan/num_parameters": plan.num_parameters,
            "plan/memory_bytes": plan.memory_bytes,
            "train/memory_bytes": trained.memory_bytes,
            "throughput/mean_tokens_per_second": trained.tokens_per_second,
            "throughput/mean_mfu": mfu(plan, trained.tokens_per_second),
        },
        trained.step,
    )

    page = describe_ledger(ledger.entries, ledger.budget_seconds)
    session.recorder.log_text(page.to_html(), "ledger.html")
    session.recorder.log_text(json.dumps(ledger.entries, indent=2), "ledger.json")
    show_samples(session)


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
    return values | {
        f"plan.trainer.{name}": value for name, value in plan.trainer.model_dump().items()
    }


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
        "record": subset.record.model_dump(mode="json"),
        "notice": subset.notice,
    }


def record_data(session: Session, subset: TextSubset) -> None:
    """Tell what the data stage took: on the screen, and in the run's record."""
    record = subset.record
    recorder = session.recorder
    for line in record.summary_lines():
        session.log(line)
    for warning in record.warnings:
        session.log(f"warning: {warning}")

    recorder.log_dataset(describe_dataset(subset) | {"name": name_text(session)})
    recorder.log_text(record.model_dump_json(indent=2), "data.json")
    recorder.log_metrics(
        {
            "data/documents": record.documents,
            "data/train_bytes": record.train_bytes,
            "data/validation_bytes": record.validation_bytes,
            "data/replaced_bytes": record.replaced_bytes,
            "data/empty_rows": record.empty_rows,
            "data/exact_duplicates": record.exact_duplicates,
            "data/near_duplicates": record.near_duplicates,
            "data/files_left_out": record.num_left_out,
        },
        0,
    )


def describe_version(
    session: Session, plan: Plan, score: dict[str, Any], subset: TextSubset
) -> str:
    """Return the model version's description, in Markdown."""
    part = "the whole" if score["is_whole"] else "a prefix of the"
    lines = [
        f"{score['bits_per_byte']:.4f} bits per byte on {part} held-out text of {subset.name} "
        f"({score['num_bytes']:,} bytes, SHA-256 `{score['text_sha256'][:16]}...`).",
        f"{plan.summary()}; {plan.num_parameters:,} parameters, trained from "
        f"{describe_origin(session)} in "
        f"{session.params.budget.hours:g} h on {plan.trainer.device} ({plan.trainer.dtype}).",
    ]

    comparison = session.facts.get("comparison")
    if comparison is not None:
        lines.append(f"Against version {comparison.champion_version}: {comparison.verdict}.")

    lines.append(
        f"Learnt {subset.name}, digest `{subset.source_digest}`; run folder "
        f"`{session.folder.name}`."
    )

    return "\n\n".join(lines)


def describe_origin(session: Session) -> str:
    """Return "scratch", or which version's weights training went on from."""
    start = session.facts.get("start")
    return (
        "scratch"
        if start is None or start.version is None
        else f"the weights of version {start.version}"
    )


def format_data(subset: TextSubset) -> str:
    """Return what the data stage took, a sentence a line, as the model card tells it."""
    record = subset.record
    lines = [*record.summary_lines(), *(f"Warning: {warning}" for warning in record.warnings)]
    return "\n".join(" ".join(line.split()) for line in lines)[:MOST_DATA_CHARACTERS]


def count_seen_bytes(session: Session, plan: Plan, trained: TrainResult) -> int:
    """Return the bytes of text that the model has read, those of the version it was continued from
    included.
    """
    before = (
        session.facts["started_from"].tags.get("seen_bytes", "0")
        if "started_from" in session.facts
        else "0"
    )
    return int(float(before) + trained.total_tokens * plan.bytes_per_token)


def list_learnt_subsets(session: Session, subset: TextSubset) -> str:
    """Return the fingerprints of the subsets that the model and those it was continued from have
    learnt.
    """
    before = (
        session.facts["started_from"].tags.get(LEARNT_TAG, "")
        if "started_from" in session.facts
        else ""
    )
    names = [name for name in before.split(",") if name and name != subset.fingerprint]
    return ",".join([*names[-MOST_SUBSETS:], subset.fingerprint])


def version_tags(
    session: Session,
    plan: Plan,
    trained: TrainResult,
    score: dict[str, Any],
    subset: TextSubset,
    system: SystemReport,
) -> dict[str, str]:
    """Return what a version says of its origin."""
    tags = {
        "bits_per_byte": f"{score['bits_per_byte']:.5f}",
        "text_sha256": score["text_sha256"],
        "score_is_whole": str(score["is_whole"]).lower(),
        **describe_text(session, subset),
        "dataset_digest": subset.fingerprint,
        DATA_TAG: format_data(subset),
        "seen_bytes": str(count_seen_bytes(session, plan, trained)),
        LEARNT_TAG: list_learnt_subsets(session, subset),
        "started_from": session.facts["start"].name if "start" in session.facts else "scratch",
        "num_parameters": str(plan.num_parameters),
        "tokens": str(trained.total_tokens),
        "hours": f"{session.params.budget.hours:g}",
        "hardware_id": system.hardware_id,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": read_git_commit(),
        "prefect_flow_run_id": session.flow_run.id,
        "prefect_flow_run_url": session.flow_run.url,
    }

    return {name: value for name, value in tags.items() if value}


def read_git_commit() -> str:
    """Return the commit of the code that runs, or "" where it is no checkout, or git is missing."""
    checkout = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    # An installed package may lie inside of another project's repository. Windows looks for git
    # where a person stands.
    if not (checkout / ".git").exists() or git is None or Path(git).resolve().parent == Path.cwd():
        return ""
    found = subprocess.run(
        [git, "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=False
    )

    return found.stdout.strip()


def make_request(
    session: Session,
    plan: Plan,
    trained: TrainResult,
    score: dict[str, Any],
    subset: TextSubset,
    system: SystemReport,
    champion: Champion,
) -> RegistrationRequest:
    """Return what is asked of MLflow's registry, with the comparison that decides who is
    champion.
    """
    params = session.params
    comparison, not_compared = compare_with_champion(
        champion, session.facts["documents"], params.training.seed
    )
    session.facts["comparison"] = comparison
    show_decision(session, comparison, not_compared)

    return RegistrationRequest(
        hf_folder=trained.folder,
        model_name=find_model_name(session),
        promote=params.tracking.promote,
        description=describe_version(session, plan, score, subset),
        tags=version_tags(session, plan, trained, score, subset, system),
        bits_per_byte=score["bits_per_byte"],
        text_sha256=score["text_sha256"],
        sampling=generation_defaults(session),
        comparison=comparison,
        not_compared=not_compared,
        params={name: str(value) for name, value in flatten_plan(plan).items()},
    )


def describe_unregistered(session: Session, trained: TrainResult, seconds: float) -> ModelVersion:
    """Return the version, without a number yet, of a model that MLflow did not take in time.

    The model and its record are on disk, and the next run or `lightlm sync` registers it: no reason
    to fail.
    """
    why = session.outbox.explain_delay(seconds)
    reason = (
        f"not registered yet ({why}); the model is kept in {trained.folder}, and "
        "`lightlm sync` or the next run registers it"
    )
    name = find_model_name(session)

    return ModelVersion(
        name=name,
        version="",
        run_id="",
        aliases=(),
        tags={PROMOTION_TAG: reason},
        created_at=datetime.now(UTC),
    )


def keep_summary(session: Session, summary: RunSummary) -> None:
    """Keep what the run reached where no orchestrator can lose it: in its folder, and with the
    command.
    """
    write_file(session.folder / "summary.json", summary.model_dump_json(indent=2).encode())
    if (launch := LAUNCH.get()) is not None:
        launch.summary = summary
