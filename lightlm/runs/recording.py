"""The record of a run: its metrics, params, tags and descriptions, and its registration request."""

import getpass
import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from lightlm.budget.plan import Plan
from lightlm.data.origin import list_names
from lightlm.data.subset import TextSubset
from lightlm.energy import Energy
from lightlm.evaluation.comparison import Comparison
from lightlm.evaluation.score import Evaluated
from lightlm.json_object import JsonObject
from lightlm.model.accounting import flops_per_token
from lightlm.params import Params
from lightlm.rendering.page import Page
from lightlm.runs.champion import advise_hours, compare_with_champion
from lightlm.runs.naming import text_tags
from lightlm.runs.orchestrator import FlowRun
from lightlm.runs.pages import describe_ledger, show_decision, show_samples
from lightlm.runs.session import LOGGER, Session
from lightlm.runs.summary import RunSummary, describe_parts, find_counting_bits
from lightlm.runs.texts import describe_dataset, describe_other, list_others
from lightlm.runs.values import Material, Outcome, Trained
from lightlm.store.commit import write_file
from lightlm.tracking.record import RegistrationRequest, sample_path
from lightlm.tracking.registry import PROMOTION_TAG, ModelVersion
from lightlm.tracking.tags import DATA_TAG, LEARNED_TAG, OTHERS_TAG
from lightlm.training.events import Event, Sampled, StepDone, Validated

MOST_DATA_CHARACTERS = 2000
"""Characters of a version's tag of its data."""

MOST_SUBSETS = 200
"""Fingerprints that a version's tag lists: MLflow takes 5,000 characters on every database."""


def run_tags(flow_run: FlowRun, command: str) -> dict[str, str]:
    """Return user, source and commit of the run as MLflow's own tags, and its flow run."""
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


def record_event(session: Session, plan: Plan, event: Event) -> None:
    """Put the numbers and texts of a training event into the run's record."""
    recorder = session.recorder
    session.page.progress(event.progress)

    if isinstance(event, StepDone):
        seconds = max(event.seconds, 1e-9)
        speed = event.batch_tokens / seconds
        metrics = {
            "train/loss": event.loss,
            "train/gradient_norm": event.gradient_norm,
            "train/learning_rate": event.learning_rate_factor * plan.trainer.matrix_learning_rate,
            "train/learning_rate_factor": event.learning_rate_factor,
            "train/tokens": event.total_tokens,
            "throughput/tokens_per_second": speed,
            "throughput/mfu": mfu(plan, speed),
            "throughput/waited_fraction": event.waited_seconds / seconds,
            "budget/progress": event.progress,
            "budget/elapsed_seconds": session.ledger.elapsed_seconds,
        }
        if event.balance_loss is not None:
            metrics["train/balance_loss"] = event.balance_loss
            # 1 where all experts are chosen equally often; num_experts / num_active_experts where
            # always the same ones are.
            metrics["train/expert_imbalance"] = event.balance_loss / plan.model.num_active_experts
        recorder.log_metrics(metrics, event.step)
    elif isinstance(event, Validated):
        recorder.log_metrics({"validation/bits_per_byte": event.bits_per_byte}, event.step)
        LOGGER.info(
            "%.0f %% of the time, step %d: %.3f bits per byte held out",
            100 * event.progress,
            event.step,
            event.bits_per_byte,
        )
    elif isinstance(event, Sampled):
        recorder.log_text(event.prompt + event.text, sample_path(event.step))


def record_ledger(session: Session, plan: Plan, trained: Trained) -> None:
    """Put the seconds of each stage, and speed and memory, into the run's record."""
    ledger = session.ledger
    result = trained.result
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
            "train/memory_bytes": result.memory_bytes,
            "throughput/mean_tokens_per_second": result.tokens_per_second,
            "throughput/mean_mfu": mfu(plan, result.tokens_per_second),
        }
        | Energy(ledger.joules, session.params.tracking.grams_co2_per_kwh).list_metrics(),
        result.step,
    )

    page = describe_ledger(ledger.entries, ledger.budget_seconds)
    session.recorder.log_text(page.to_html(), "ledger.html")
    session.recorder.log_text(json.dumps(ledger.entries, indent=2), "ledger.json")
    show_samples(session, trained.samples)


def list_scores(evaluated: Evaluated, plan: Plan) -> dict[str, float]:
    """Return the metrics of the final score: what `generate` will use, each part alone, and those
    on other texts.
    """
    score = evaluated.score
    scores = {
        "evaluation/bits_per_byte": score.bits_per_byte,
        "evaluation/network_bits_per_byte": score.network_alone,
    }
    if (counting := find_counting_bits(score, plan)) is not None:
        scores["evaluation/counting_bits_per_byte"] = counting
    for one in evaluated.others:
        scores[f"evaluation/{one.name}/bits_per_byte"] = one.score.bits_per_byte
    if evaluated.together is not None:
        scores["evaluation/together_bits_per_byte"] = evaluated.together
    return scores


def mfu(plan: Plan, tokens_per_second: float) -> float:
    """Return the share of the measured matrix rate that training reached."""
    return flops_per_token(plan.model) * tokens_per_second / plan.matrix_flops_per_second


def generation_defaults(params: Params) -> dict[str, float | int]:
    """Return how text is sampled from the model by default."""
    return params.generation.model_dump(exclude={"seed"})


def flatten_plan(plan: Plan) -> JsonObject:
    """Return the plan's model and trainer under dotted names."""
    values = {f"plan.model.{name}": value for name, value in plan.model.model_dump().items()}
    return values | {
        f"plan.trainer.{name}": value for name, value in plan.trainer.model_dump().items()
    }


def record_data(session: Session, material: Material) -> None:
    """Show what the data stage read, and put it into the run's record."""
    subset = material.subset
    record = subset.record
    recorder = session.recorder
    for one in (record, *(other.subset.record for other in subset.others)):
        for line in one.summary_lines():
            session.log(line)
        for warning in one.warnings:
            session.log(f"warning: {warning}")

    name = list_names(material.origin)[0]
    recorder.log_dataset(describe_dataset(subset) | {"name": name})
    recorder.log_text(record.model_dump_json(indent=2), "data.json")
    for other in subset.others:
        recorder.log_dataset(describe_other(other))
        inventory = other.subset.record.model_dump_json(indent=2)
        recorder.log_text(inventory, f"data-{other.subset.name}.json")


def describe_version(session: Session, outcome: Outcome, comparison: Comparison | None) -> str:
    """Return the model version's description, in Markdown."""
    plan = outcome.plan
    score = outcome.evaluated.score
    subset = outcome.material.subset
    part = "the whole" if score.is_whole else "a prefix of the"
    parts = describe_parts(score)
    version = outcome.start.version
    origin = "scratch" if version is None else f"the weights of version {version.version}"
    if outcome.start.base is not None:
        origin = outcome.start.base.name
    lines = [
        f"{score.bits_per_byte:.4f} bits per byte on {part} held-out text of {subset.name} "
        f"({score.num_bytes:,} bytes, SHA-256 `{score.text_sha256[:16]}...`){parts}.",
        f"{plan.summary()}; {plan.num_parameters:,} parameters, trained from {origin} in "
        f"{session.params.budget.hours:g} h on {plan.trainer.device} ({plan.trainer.dtype}).",
    ]

    lines += describe_gain(outcome)
    if comparison is not None:
        lines.append(f"Against version {comparison.champion_version}: {comparison.verdict}.")

    if others := list_others(outcome):
        lines.append(f"Trained on other text, too: {'; '.join(others)}.")

    lines.append(
        f"Learned {subset.name}, digest `{subset.source_digest}`; run folder "
        f"`{session.folder.name}`."
    )

    return "\n\n".join(lines)


def describe_gain(outcome: Outcome) -> list[str]:
    """Return a sentence on what the base had before and what the hours added; none from scratch."""
    result = outcome.trained.result
    start = outcome.start.base
    if start is None or result.start_bits_per_byte is None:
        return []
    before = result.start_bits_per_byte
    if result.kept_start or result.final_bits_per_byte is None:
        return [
            f"Training did not improve on {start.name} ({before:.4f} bits per byte on a sample of "
            "the held-out text): its weights are kept."
        ]
    after = result.final_bits_per_byte
    return [
        f"On the same sample of the held-out text {start.name} had {before:.4f} bits per byte "
        f"before and {after:.4f} after training: {1 - after / before:.1%} are of these hours, the "
        "rest is the base's."
    ]


def base_tags(outcome: Outcome) -> dict[str, str]:
    """Return the tags of the base that training started from."""
    start = outcome.start.base
    result = outcome.trained.result
    if start is None:
        return {}
    tags = start.base.origin.tags() | {"tuned": outcome.plan.trainer.tuned}
    if result.start_bits_per_byte is not None:
        tags["base_bits_per_byte"] = f"{result.start_bits_per_byte:.5f}"
    if result.final_bits_per_byte is not None:
        tags["trained_bits_per_byte"] = f"{result.final_bits_per_byte:.5f}"
    return tags | {"kept_base": str(result.kept_start).lower()}


def format_data(subset: TextSubset) -> str:
    """Return the data record as lines of text, for the model card."""
    record = subset.record
    lines = [*record.summary_lines(), *(f"Warning: {warning}" for warning in record.warnings)]
    return "\n".join(" ".join(line.split()) for line in lines)[:MOST_DATA_CHARACTERS]


def count_seen_bytes(outcome: Outcome) -> int:
    """Return the bytes of text that the model has read, including the version it started from."""
    version = outcome.start.version
    before = "0" if version is None else version.tags.get("seen_bytes", "0")
    return int(float(before) + outcome.trained.result.total_tokens * outcome.plan.bytes_per_token)


def list_learned_subsets(outcome: Outcome) -> str:
    """Return the fingerprints of the subsets that the model and its predecessors learned."""
    version = outcome.start.version
    subset = outcome.material.subset
    own = [subset.fingerprint, *(one.subset.fingerprint for one in subset.others)]
    before = "" if version is None else version.tags.get(LEARNED_TAG, "")
    names = [name for name in before.split(",") if name and name not in own]
    return ",".join([*names[-MOST_SUBSETS:], *own])


def version_tags(session: Session, outcome: Outcome) -> dict[str, str]:
    """Return the tags that say where a version comes from."""
    score = outcome.evaluated.score
    subset = outcome.material.subset
    tags = {
        "bits_per_byte": f"{score.bits_per_byte:.5f}",
        "network_bits_per_byte": format_bits(score.network_bits_per_byte),
        "counting_bits_per_byte": format_bits(score.counting_bits_per_byte),
        "text_sha256": score.text_sha256,
        "score_is_whole": str(score.is_whole).lower(),
        **text_tags(outcome.material),
        "dataset_digest": subset.fingerprint,
        DATA_TAG: format_data(subset),
        "seen_bytes": str(count_seen_bytes(outcome)),
        LEARNED_TAG: list_learned_subsets(outcome),
        OTHERS_TAG: "; ".join(list_others(outcome)),
        "started_from": outcome.start.name,
        **base_tags(outcome),
        "num_parameters": str(outcome.plan.num_parameters),
        "tokens": str(outcome.trained.result.total_tokens),
        "hours": f"{session.params.budget.hours:g}",
        "hardware_id": outcome.system.hardware_id,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": read_git_commit(),
        "prefect_flow_run_id": session.flow_run.id,
        "prefect_flow_run_url": session.flow_run.url,
    }

    return {name: value for name, value in tags.items() if value}


def format_bits(bits: float | None) -> str:
    """Return a score as tags hold it; "" where there is none."""
    return "" if bits is None else f"{bits:.5f}"


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


def make_request(session: Session, outcome: Outcome) -> tuple[RegistrationRequest, Page]:
    """Return the request to MLflow's registry, and the page of the comparison that it rests on."""
    params = session.params
    score = outcome.evaluated.score
    comparison, not_compared = compare_with_champion(
        outcome.champion, outcome.evaluated.documents, params.training.seed
    )
    scores = outcome.champion.scores
    if comparison is not None and scores is not None and not score.is_whole:
        seconds = session.ledger.entries.get("final evaluation", 0.0)
        advice = advise_hours(
            params.budget.hours, scores.num_bytes, score.num_bytes, seconds, outcome.plan
        )
        comparison = comparison.model_copy(update={"advice": advice})
    page = show_decision(session, outcome.start, comparison, not_compared)

    request = RegistrationRequest(
        hf_folder=outcome.trained.result.folder,
        model_name=outcome.champion.model_name,
        promote=params.tracking.promote,
        description=describe_version(session, outcome, comparison),
        tags=version_tags(session, outcome),
        bits_per_byte=score.bits_per_byte,
        text_sha256=score.text_sha256,
        sampling=generation_defaults(params),
        comparison=comparison,
        not_compared=not_compared,
        params={name: str(value) for name, value in flatten_plan(outcome.plan).items()},
    )
    return request, page


def describe_unregistered(session: Session, outcome: Outcome, seconds: float) -> ModelVersion:
    """Return the version, without a number yet, of a model that MLflow did not take in time.

    That is no reason to fail: model and record are on disk, and the next run registers it.
    """
    why = session.outbox.explain_delay(seconds)
    reason = (
        f"not registered yet ({why}); the model is kept in {outcome.trained.result.folder}, and "
        "`lightlm sync` or the next run registers it"
    )

    return ModelVersion(
        name=outcome.champion.model_name,
        version="",
        run_id="",
        aliases=(),
        tags={PROMOTION_TAG: reason},
        created_at=datetime.now(UTC),
    )


def keep_summary(session: Session, summary: RunSummary) -> None:
    """Keep the summary in the run's folder and with the command, safe from the orchestrator."""
    write_file(session.folder / "summary.json", summary.model_dump_json(indent=2).encode())
    if session.launch is not None:
        session.launch.summary = summary
