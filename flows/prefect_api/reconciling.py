"""Reconciling Prefect with runs that ended during an outage or by a death, or went on without it.

A run folder keeps the ids of its flow runs, and whether one is still to be made. Its lock, which
the kernel frees, shows whether its process lives.
"""

import logging
import secrets
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lightlm.errors import BusyError, LightLMError
from lightlm.json_object import JsonObject
from lightlm.params import Params
from lightlm.runs.folder import LOCK, OVER, Run, read_decisions
from lightlm.store.journal import Journal
from lightlm.store.lock import hold_lock

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FLOW_RUNS = "flow_runs"
"""Name of a run's decision that keeps its flow runs until Prefect has their end."""

UNRECORDED = "unrecorded"
"""Name of a run's decision that keeps name and parameters of a flow run that Prefect does not have.
"""

MOST_RUNS = 50
"""Newest run folders that are looked at; each costs a request of some 10 ms, once."""

SETTLED = "settled"
UNKNOWN = "unknown"
MENDED = "mended"

LOGGER = logging.getLogger(__name__)


class Unrecorded(BaseModel):
    """A flow run that is still to be made. With `key` Prefect makes one of it, however often it is
    asked: a process may die before it has kept the answer.
    """

    model_config = ConfigDict(frozen=True)

    flow: str
    name: str
    parameters: JsonObject
    key: str | None = None


FLOW_RUN_IDS = TypeAdapter(list[UUID])


def record_later(run: Run, params: Params, command: str) -> None:
    """Keep what Prefect's next start needs to make a flow run of a run that has none. `command`
    began it: "lightlm train" for a run of train-flow.
    """
    if run.decided(FLOW_RUNS):
        return
    run.decide_once(
        UNRECORDED,
        lambda: {
            "flow": f"{command.removeprefix('lightlm ')}-flow",
            "name": run.name,
            "parameters": {"hours": params.budget.hours, "dataset": params.dataset.source},
            "key": secrets.token_hex(16),
        },
    )


def note_flow_run(run: Run, flow_run_id: str | None, params: Params, command: str) -> None:
    """Keep a flow run's id with its run; end those that its dead processes left running. Without
    one, Prefect gets the flow run at its next start.
    """
    if flow_run_id is None:
        record_later(run, params, command)
        return
    earlier = read_ids(run.decided(FLOW_RUNS))
    if flow_run_id in earlier:
        return
    run.decide(FLOW_RUNS, [*earlier, flow_run_id])
    if earlier:
        threading.Thread(
            target=_end_quietly, args=(earlier,), name="reconcile", daemon=True
        ).start()


def read_ids(kept: Any) -> list[str]:
    """Return the ids of flow runs that a decision keeps; none where they are no such ids."""
    try:
        return [str(one) for one in FLOW_RUN_IDS.validate_python(kept)]
    except ValidationError:
        return []


def read_unrecorded(kept: Any) -> Unrecorded | None:
    """Return the flow run that a decision says is to be made; None where it says none."""
    try:
        return Unrecorded.model_validate(kept)
    except ValidationError:
        return None


def reconcile(home: Path) -> list[str]:
    """Return one line for each flow run that only Prefect thought alive; it has its end now.

    A run whose folder cannot be read, or whose flow run Prefect refuses, keeps no other from it.

    Raises:
        httpx.TransportError: Prefect's API does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    lines: list[str] = []
    journals = sorted((home / "runs").glob("*/run-*.journal"), reverse=True)[:MOST_RUNS]
    with get_client(sync_client=True) as client:
        for journal in journals:
            try:
                if not read_decisions(journal).keys() & {FLOW_RUNS, UNRECORDED}:
                    continue
                with hold_lock(journal.parent / LOCK, wait=False):
                    lines += _reconcile_run(client, journal)
            except BusyError:
                continue  # It lives.
            except (LightLMError, OSError, PrefectHTTPStatusError) as error:
                LOGGER.debug("%s is not reconciled: %s", journal.parent, error)

    return lines


def start_reconciling(home: Path) -> None:
    """Reconcile in the background; an API that does not answer costs nothing."""
    threading.Thread(target=_reconcile_quietly, args=(home,), name="reconcile", daemon=True).start()


def _reconcile_run(client: "SyncPrefectClient", path: Path) -> list[str]:
    decisions = read_decisions(path)
    ids = read_ids(decisions.get(FLOW_RUNS))
    how = decisions.get(OVER)
    lines = []
    outcomes = []
    if unrecorded := read_unrecorded(decisions.get(UNRECORDED)):
        ids = [make_flow_run(client, unrecorded), *ids]
        with closing(Journal(path)) as journal:
            journal.append({"name": FLOW_RUNS, "value": ids})
            journal.append({"name": UNRECORDED, "value": None})

    for one in ids:
        finished = how == "FINISHED" and one == ids[-1]
        outcome = end_flow_run(client, one, is_finished=finished)
        outcomes.append(outcome)
        if outcome == MENDED:
            lines.append(
                f"flow run {one} of {path.parent.name}: {'completed' if finished else 'crashed'}"
            )

    if UNKNOWN not in outcomes:
        with closing(Journal(path)) as journal:
            journal.append({"name": FLOW_RUNS, "value": None})

    return lines


def make_flow_run(client: "SyncPrefectClient", unrecorded: Unrecorded) -> str:
    """Return the id of the flow run of a run that went on without Prefect; it is made once."""
    from prefect.client.schemas.actions import FlowRunCreate
    from prefect.states import Pending, to_state_create

    wanted = FlowRunCreate(
        flow_id=client.create_flow_from_name(unrecorded.flow),
        name=unrecorded.name,
        parameters=unrecorded.parameters,
        state=to_state_create(Pending()),
        idempotency_key=unrecorded.key,
    )

    # Its method for it, create_flow_run, takes no key.
    content = wanted.model_dump(mode="json", exclude_unset=True)
    return str(client.request("POST", "/flow_runs/", json=content).json()["id"])


def end_flow_run(client: "SyncPrefectClient", flow_run_id: str, *, is_finished: bool) -> str:
    """Return "mended" if the flow run got its end now, "settled" if it had one, else "unknown"."""
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Completed, Crashed

    try:
        state = client.read_flow_run(UUID(flow_run_id)).state
    except ObjectNotFound:
        return UNKNOWN

    # A run that Prefect saw stopped may have been continued, and finished, without it.
    if state is not None and state.is_final() and (state.is_completed() or not is_finished):
        return SETTLED

    end: Any = (
        Completed(message="Finished without Prefect's API; recorded afterwards.")
        if is_finished
        else Crashed(message="Its process died: the lock of its run folder is free.")
    )
    client.set_flow_run_state(UUID(flow_run_id), end, force=True)

    return MENDED


def _end_quietly(ids: list[str]) -> None:
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            for one in ids:
                end_flow_run(client, one, is_finished=False)
    except Exception as error:  # noqa: BLE001  (the next start tries again)
        LOGGER.debug("not reconciled: %s", error)


def _reconcile_quietly(home: Path) -> None:
    try:
        reconcile(home)
    except Exception as error:  # noqa: BLE001  (httpx, Prefect and pydantic each raise their own; the next start tries)
        LOGGER.debug("not reconciled: %s", error)
