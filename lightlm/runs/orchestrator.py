"""The orchestrator as a run sees it: a page and an identity; by default there is none."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class FlowRun(NamedTuple):
    """The orchestrator's run that this run is part of; both empty where there is none."""

    id: str = ""
    url: str = ""


NO_FLOW_RUN = FlowRun()
"""The flow run of a run that no orchestrator started."""


class RunPage(Protocol):
    """The page on which a run shows its progress. Its methods neither wait nor raise."""

    def table(self, key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
        """Show rows, their names as columns."""

    def markdown(self, key: str, text: str, description: str) -> None:
        """Show a text in Markdown."""

    def link(self, key: str, url: str, text: str, description: str) -> None:
        """Show a link."""

    def progress(self, fraction: float) -> None:
        """Show how much of the training is done."""

    def rename(self, name: str) -> None:
        """Give the run another name."""


class SilentPage(RunPage):
    """The page of a run that no orchestrator started: it shows nothing."""
