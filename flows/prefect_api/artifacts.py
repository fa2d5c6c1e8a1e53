"""The page of a run in Prefect: progress, tables, decision, link; sent by its own thread.

It neither holds up nor fails a run: an API that does not answer costs only artifacts.
"""

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.runtime import task_run

from lightlm.json_object import JsonObject
from lightlm.runs.session import LOGGER

MOST_UPDATES = 20
"""Updates of the progress artifact in a run; each costs the API about 10 ms of CPU."""

CLOSE_SECONDS = 0.3
"""Seconds that the last artifacts get at the end; the others were sent before."""


class FlowPage:
    """A flow run's artifacts. Every method returns at once; without a flow run they do nothing."""

    def __init__(self, flow_run_id: str | None) -> None:
        self._flow_run_id = None if flow_run_id is None else UUID(str(flow_run_id))
        self._requests: queue.Queue[JsonObject | None] = queue.Queue()
        self._progress_id: UUID | None = None
        self._shown = -1.0
        self._thread = threading.Thread(target=self._send_all, name="artifacts", daemon=True)
        if self._flow_run_id is not None:
            self._thread.start()

    def table(self, key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
        """Show rows, their names as columns."""
        import json

        self._put(key=key, type="table", data=json.dumps(list(rows)), description=description)

    def markdown(self, key: str, text: str, description: str) -> None:
        """Show a text in Markdown."""
        self._put(key=key, type="markdown", data=text, description=description)

    def link(self, key: str, url: str, text: str, description: str) -> None:
        """Show a link."""
        self._put(key=key, type="markdown", data=f"[{text}]({url})", description=description)

    def progress(self, fraction: float) -> None:
        """Show how much of the training is done; at most MOST_UPDATES times."""
        if fraction - self._shown >= 1 / MOST_UPDATES or (fraction >= 1 > self._shown):
            self._shown = fraction
            self._put(
                key="train-progress", type="progress", data=round(100 * min(fraction, 1.0), 1)
            )

    def rename(self, name: str) -> None:
        """Give the flow run another name."""
        self._put(key="name", type="name", data=name)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Send the rest, for at most `seconds`."""
        self._requests.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _put(self, **fields: Any) -> None:
        if self._flow_run_id is not None:
            self._requests.put(fields | {"task_run_id": task_run.id})

    def _send_all(self) -> None:
        try:
            with get_client(sync_client=True) as client:
                while (fields := self._requests.get()) is not None:
                    self._send(client, fields)
        except Exception as error:  # noqa: BLE001  (a page that cannot be shown is no reason to fail a run)
            logging.getLogger(__name__).debug("Prefect takes no artifacts: %s", error)

    def _send(self, client: SyncPrefectClient, fields: JsonObject) -> None:
        try:
            if fields["type"] == "progress" and self._progress_id is not None:
                client.update_artifact(self._progress_id, ArtifactUpdate(data=fields["data"]))
                return
            if fields["type"] == "name" and self._flow_run_id is not None:
                client.update_flow_run(self._flow_run_id, name=fields["data"])
                return
            created = client.create_artifact(
                ArtifactCreate(flow_run_id=self._flow_run_id, **fields)
            )
            if fields["type"] == "progress":
                self._progress_id = created.id
        except Exception as error:  # noqa: BLE001  (the next artifact may go through)
            logging.getLogger(__name__).debug("Prefect did not take %s: %s", fields["key"], error)


def show_logs() -> None:
    """Send the INFO messages of the logger `lightlm` to the flow run's logs."""
    from prefect.logging.handlers import APILogHandler

    LOGGER.setLevel(logging.INFO)
    if not any(isinstance(handler, APILogHandler) for handler in LOGGER.handlers):
        LOGGER.addHandler(APILogHandler())
