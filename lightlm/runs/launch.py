"""What a command has before its run begins. It imports nothing slow."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightlm.console.progress import Progress
    from lightlm.runs.folder import Run
    from lightlm.runs.summary import RetrainSummary, RunSummary
    from lightlm.tracking.outbox import Outbox
    from lightlm.training.supervisor import Worker


@dataclass
class Launch:
    """The parts that a command starts before the flow, so that slow imports overlap."""

    started_at: float | None = None
    run: "Run | None" = None
    worker: "Worker | None" = None
    outbox: "Outbox | None" = None
    is_quiet: bool = False
    is_fresh: bool = False
    progress: "Progress | None" = None
    summary: "RunSummary | None" = None
    """Summary of a train-flow as soon as it is known, safe from Prefect's API."""
    retraining: "RetrainSummary | None" = None
    """Summary of a retrain-flow, likewise."""
    failure: BaseException | None = None
    """Error of the flow: Prefect raises its own if it cannot record a failure."""

    is_stopping: bool = False
    """Whether a signal has asked for the end. The signal's KeyboardInterrupt alone may be lost: a
    library that it meets inside of a callback drops it or makes another error of it (pydantic's
    serializers, Python's weak references).
    """

    def confirm_stop(self) -> bool:
        """Return whether a Ctrl-C is meant: asks at the panel; True without a panel."""
        return self.progress is None or self.progress.confirm_stop()

    def check_stop(self) -> None:
        """Raise KeyboardInterrupt where a signal has asked for the end."""
        if self.is_stopping:
            raise KeyboardInterrupt
