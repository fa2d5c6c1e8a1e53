"""Resuming a run: the decisions and results of the process that died, and training to its end."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lightlm.budget.plan import Plan
from lightlm.budget.probe import MachineRate, Probe
from lightlm.data.later_parts import PartWriter
from lightlm.data.shards import TokenShards
from lightlm.data.subset import TextSubset
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.errors import Interrupted
from lightlm.evaluation.score import Evaluated, Score
from lightlm.json_object import JsonObject
from lightlm.runs.folder import last_recorded_steps
from lightlm.runs.naming import MODEL_NAME
from lightlm.runs.recording import record_event
from lightlm.runs.session import Session
from lightlm.runs.values import Sample, Trained
from lightlm.system import SystemReport
from lightlm.tracking.record import RegistrationRequest
from lightlm.training.events import Checkpointed, Sampled, Validated, from_json, to_json
from lightlm.training.messages import TrainRequest, TrainResult, read_result
from lightlm.training.recent_events import RecentEvents

Decided = TypeVar("Decided", bound=BaseModel)


def forget_another_text(session: Session, subset: TextSubset) -> None:
    """Begin a continued run's training anew where its text has changed since."""
    before = session.run.decided("subset")
    if before not in (None, subset.identity):
        session.log(
            "The text has changed since this run began: training begins anew in what is left of "
            "the budget"
        )
        session.run.forget(("vocab_sizes", "score", "registration", MODEL_NAME))
    if before != subset.identity:
        session.run.decide("subset", subset.identity)


def find_plan(session: Session, shards: TokenShards) -> Plan | None:
    """Return the plan that a continued run trains by; None if it has nothing trained to resume."""
    kept = session.run.decided("plan")
    if kept is None or kept["shards"] != shards.identity:
        return None
    # Before the first checkpoint another plan suits the time that is left better.
    is_needed = session.run.has_checkpoint or session.params.budget.max_steps is not None
    return read_decision(Plan, kept["plan"]) if is_needed else None


def find_system(session: Session) -> SystemReport | None:
    """Return an earlier process's system check, where only the registration is left."""
    return (
        read_decision(SystemReport, session.run.decided("system"))
        if session.run.is_scored
        else None
    )


def find_probe(session: Session, shards: TokenShards) -> Probe | None:
    """Return the timings that a continued run made for these shards."""
    kept = session.run.decided("timings")
    if kept is None or kept["shards"] != shards.identity:
        return None
    probe = read_decision(Probe, kept["probe"])
    return probe if probe is not None and probe.shapes else None


def find_machine(session: Session, system: SystemReport) -> MachineRate | None:
    """Return what a continued run measured, where the device is still there."""
    kept = read_decision(MachineRate, session.run.decided("machine"))
    kinds = {device.kind for device in system.devices}
    return None if kept is None or kept.device.partition(":")[0] not in kinds else kept


def find_score(session: Session, model: str) -> Evaluated | None:
    """Return the score that an earlier process computed of the model with this digest."""
    kept = session.run.decided("score")
    return None if kept is None or kept["model"] != model else Evaluated.model_validate(kept)


def find_request(session: Session, score: Score) -> RegistrationRequest | None:
    """Return the request of an earlier process; sent again, it makes no second version."""
    kept = read_decision(RegistrationRequest, session.run.decided("registration"))
    return kept if kept is not None and kept.bits_per_byte == score.bits_per_byte else None


def read_decision(kind: type[Decided], values: Any) -> Decided | None:
    """Return a decision as its class; None if it is missing or has other fields."""
    try:
        return None if values is None else kind.model_validate(values)
    except ValidationError:
        return None


def replay_training(folder: Path) -> list[JsonObject] | None:
    """Return the last events and the result of a training that had ended; None if it had not."""
    found = read_result(folder)
    if found is None:
        return None
    result, events = found
    records: list[JsonObject] = []
    RecentEvents(events).replay(lambda event: records.append(to_json(event)))
    return [*records, {"result": result.model_dump(mode="json")}]


def train_while_tokenizing(
    session: Session, plan: Plan, request: TrainRequest, tokenizer: Tokenizer, shards: TokenShards
) -> Trained:
    """Return what the worker reached, while later parts of the shards are written here; the seconds
    of both are training's in the ledger, and those of tokenization are recorded, too.
    """
    # On a CPU training has the cores; while a GPU trains they are free.
    num_processes = 1 if plan.trainer.device == "cpu" else None
    with PartWriter(
        session.home,
        shards,
        tokenizer,
        session.folder,
        num_processes=num_processes,
        report=session.log,
    ) as later:
        trained = follow_training(session, plan, request)

    if later.num_bytes:
        megabytes = later.num_bytes / 1e6
        session.log(f"Tokenized {megabytes:,.0f} MB more during training, in {later.seconds:.1f} s")
        figures = {"seconds": later.seconds, "bytes": float(later.num_bytes)}
        session.recorder.log_metrics(
            {f"wall_clock/shards_during_training_{name}": one for name, one in figures.items()},
            trained.result.step,
        )
    return trained


def follow_training(session: Session, plan: Plan, request: TrainRequest) -> Trained:
    """Return what the worker reached; its events go to the recorder and the display."""
    seconds = {"validation": 0.0, "checkpoint": 0.0}
    samples: list[Sample] = []
    validated = None
    recorded = last_recorded_steps(session.folder) if session.run.is_continued else {}
    published = replay_training(session.folder) if session.run.is_continued else None

    try:
        for record in published or session.worker.train(request.model_dump(mode="json")):
            if "result" in record:
                result = TrainResult.model_validate(record["result"])
                seconds["gate"] = result.gate_seconds
                return Trained(result, seconds, samples)

            session.check_stop()
            event = from_json(record)
            session.progress.show(event)
            if isinstance(event, Validated):
                seconds["validation"] += event.seconds
            elif isinstance(event, Checkpointed):
                seconds["checkpoint"] += event.seconds

            # Steps that are done again after a death are recorded already.
            kind = type(event).__name__
            if event.step <= recorded.get(kind, -1):
                continue

            recorded[kind] = event.step
            record_event(session, plan, event)
            if isinstance(event, Validated):
                validated = event.bits_per_byte
            elif isinstance(event, Sampled):
                text = event.prompt + event.text
                samples.append(Sample(event.step, event.progress, validated, text))
    except KeyboardInterrupt:
        session.worker.interrupt()
        raise Interrupted(
            "stopped; run the same command again to go on (what was reached is in "
            f"{session.folder})"
        ) from None

    raise AssertionError("a job ends with its result")
