"""A run's session inside of a flow: its page and its identity are the flow run's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled

from lightlm.errors import Interrupted
from lightlm.params import Params
from lightlm.runs.launch import Launch
from lightlm.runs.orchestrator import FlowRun
from lightlm.runs.recording import run_tags
from lightlm.runs.session import Session, open_session
from lightlm_flows.prefect_api.artifacts import FlowPage
from lightlm_flows.prefect_api.reconciling import note_flow_run, start_reconciling

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

STOPPED = "stopped; run the same command again to go on"

LAUNCH: ContextVar[Launch | None] = ContextVar("launch", default=None)
"""What a command started before its flow, which cannot get it as a parameter: Prefect stores those
and shows them. A deployment's flow finds None.
"""


def cancel_when_stopped(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return `function` so that its flow run ends as Cancelled, not as Failed or Crashed, when a
    person stops it.

    Prefect then raises its CancelledRun where the flow was called.
    """

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except (Interrupted, KeyboardInterrupt) as error:
            if FlowRunContext.get() is None:  # without Prefect there is no state to give
                raise
            # Prefect takes a state that a flow returns as its end.
            return cast("Result", Cancelled(message=str(error) or STOPPED))

    return run


@contextmanager
def open_flow_session(
    home: Path, params: Params, name: str, command: str = "lightlm train"
) -> Iterator[Session]:
    """Yield a session with the page of the current flow run; `command` is MLflow's source name."""
    page = FlowPage(flow_run.id)
    flow = FlowRun(str(flow_run.id or ""), str(flow_run.ui_url or ""))
    with open_session(
        home, params, name, run_tags(flow, command), page, flow, LAUNCH.get()
    ) as session:
        note_flow_run(session.run, flow.id or None, params, command)
        if flow.id and LAUNCH.get() is not None:
            # The flow has begun: next to its beginning, SQLite may refuse one of two that write.
            start_reconciling(home)
        try:
            yield session
        finally:
            page.close()
