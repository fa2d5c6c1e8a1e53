"""The values that the stages of a run return and hand on to later stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightlm.bases.pretrained import Base
from lightlm.budget.continuation import Start
from lightlm.budget.plan import Plan
from lightlm.data.origin import Origin
from lightlm.data.subset import TextSubset
from lightlm.evaluation.comparison import Comparison
from lightlm.evaluation.score import DocumentScores, Evaluated
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.rendering.page import Page
from lightlm.system import SystemReport
from lightlm.tracking.registry import ModelVersion
from lightlm.training.messages import BaseProbe, TrainResult


@dataclass(frozen=True)
class Material:
    """The text of a run: its documents, their difficulty (WikiText-2 has 1), and their origin."""

    subset: TextSubset
    difficulty: float
    origin: Origin


@dataclass(frozen=True)
class Champion:
    """The champion, scored on this run's held-out text, or the reason why it is not.

    `model_name` is the name that the run's own model gets, as settled with the registry.
    """

    model_name: str
    version: ModelVersion | None = None
    scores: DocumentScores | None = None
    model: ModelConfig | None = None
    learned: frozenset[int] = frozenset()
    """Indexes of the held-out documents that it was trained on; the comparison leaves them out."""
    network_bits_per_byte: float = 0.0
    """Its network's score without count tables."""
    reason: str = ""


@dataclass(frozen=True)
class BaseStart:
    """A base that training starts from: its figures here, why it was taken, the version that it is.

    `forecast` and `scratch` are the forecasts in bits per byte that were compared, if they were.
    """

    base: Base
    probe: BaseProbe
    reason: str
    version: ModelVersion | None = None
    forecast: float | None = None
    scratch: float | None = None

    @property
    def name(self) -> str:
        """Return "version 3" of a registered one, else the base's id."""
        if self.version is not None:
            return f"version {self.version.version} of {self.version.name}"
        return self.base.origin.id


@dataclass(frozen=True)
class StartingPoint:
    """Where training starts, and the params of the stages that follow.

    `choice` is None for a run that could not start from a champion. `version`, its `folder` and its
    `model` are None where training starts from scratch.
    """

    params: Params
    choice: Start | None = None
    version: ModelVersion | None = None
    folder: Path | None = None
    model: ModelConfig | None = None
    base: BaseStart | None = None

    @property
    def name(self) -> str:
        """Return "version 3", the id of a base, or "scratch"."""
        if self.base is not None:
            return self.base.name
        return "scratch" if self.choice is None else self.choice.name

    def from_scratch(self, reason: str) -> "StartingPoint":
        """Return it without the champion's weights; its params stay."""
        choice = self.choice and self.choice.model_copy(update={"version": None, "reason": reason})
        return StartingPoint(self.params, choice)


@dataclass(frozen=True)
class Sample:
    """A text that the model wrote during training, after the held-out score so far, if any."""

    step: int
    progress: float
    bits_per_byte: float | None
    text: str


@dataclass(frozen=True)
class Trained:
    """The result of training, its samples, and the seconds of validations and of checkpoints."""

    result: TrainResult
    seconds: dict[str, float]
    samples: Sequence[Sample] = ()


@dataclass(frozen=True)
class Outcome:
    """Everything that a run has reached when it asks for its registration."""

    system: SystemReport
    material: Material
    champion: Champion
    start: StartingPoint
    plan: Plan
    trained: Trained
    evaluated: Evaluated


@dataclass(frozen=True)
class Registered:
    """The version that the registry gave, and the comparison and the page that decided about it.

    A run that continues after it had asked for its registration has no `decision` to show again.
    """

    version: ModelVersion
    comparison: Comparison | None = None
    decision: Page | None = None


def name_model(params: Params, name: str) -> Params:
    """Return the params with the name that the run's model was given."""
    return params.model_copy(
        update={"tracking": params.tracking.model_copy(update={"model_name": name})}
    )


def begin_training(params: Params, champion: Champion, base: BaseStart | None) -> StartingPoint:
    """Return the starting point of a run: a base, or new weights where there is none."""
    named = name_model(params, champion.model_name)
    if base is None:
        return StartingPoint(named)
    return StartingPoint(
        named, version=base.version, folder=base.base.folder, model=base.base.model, base=base
    )
