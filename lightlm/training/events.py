"""Events of training: one frozen record per event, to JSON and back."""

from dataclasses import asdict, dataclass
from typing import get_args

from lightlm.json_object import JsonObject


@dataclass(frozen=True)
class StepDone:
    """An optimizer step. `step` counts from 1; `loss` in nats per token; `seconds` of this step."""

    step: int
    progress: float
    loss: float
    learning_rate_factor: float
    gradient_norm: float
    batch_tokens: int
    total_tokens: int
    seconds: float
    waited_seconds: float
    balance_loss: float | None = None


@dataclass(frozen=True)
class StepSkipped:
    """A step whose loss or gradient was not finite: the weights are unchanged."""

    step: int
    progress: float
    loss: float
    gradient_norm: float


@dataclass(frozen=True)
class Validated:
    """Bits per byte on the validation sample after `step` steps."""

    step: int
    progress: float
    bits_per_byte: float
    seconds: float


@dataclass(frozen=True)
class Sampled:
    """Text that the model writes after `prompt`, after `step` steps."""

    step: int
    progress: float
    prompt: str
    text: str


@dataclass(frozen=True)
class Checkpointed:
    """A durable checkpoint in `folder`."""

    step: int
    progress: float
    folder: str
    seconds: float


@dataclass(frozen=True)
class MicroBatchReduced:
    """Memory ran out; the same batch goes on in smaller parts."""

    step: int
    progress: float
    micro_batch_size: int


@dataclass(frozen=True)
class WorkerRestarted:
    """The worker died for `reason`; training resumes from its newest checkpoint."""

    step: int
    progress: float
    reason: str
    restart: int


@dataclass(frozen=True)
class RolledBack:
    """Training diverged and went back to step `to_step`, at `learning_rate_scale` of its rates."""

    step: int
    progress: float
    to_step: int
    learning_rate_scale: float
    reason: str


@dataclass(frozen=True)
class CheckpointDamaged:
    """A damaged checkpoint, for `reason`, kept in `folder`; training resumes without it."""

    step: int
    progress: float
    folder: str
    reason: str


Event = (
    StepDone
    | StepSkipped
    | Validated
    | Sampled
    | Checkpointed
    | MicroBatchReduced
    | WorkerRestarted
    | RolledBack
    | CheckpointDamaged
)

EVENTS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def to_json(event: Event) -> JsonObject:
    """Return the event as a JSON object; `event` names its class."""
    return {"event": type(event).__name__, **asdict(event)}


def from_json(record: JsonObject) -> Event:
    """Return the event that `to_json` wrote."""
    values = dict(record)
    if "learning_rate_share" in values:  # in checkpoints of version 0.1
        values["learning_rate_scale"] = values.pop("learning_rate_share")
    return EVENTS[values.pop("event")](**values)
