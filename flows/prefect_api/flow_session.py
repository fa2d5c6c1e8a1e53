"""A run's session inside of a flow: its page and its identity are the flow run's."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.runtime import flow_run

from lightlm.params import Params
from lightlm.runs.orchestrator import FlowRun
from lightlm.runs.recording import run_tags
from lightlm.runs.session import Session, open_session
from lightlm_flows.prefect_api.artifacts import FlowPage
from lightlm_flows.prefect_api.reconciling import note_flow_run


@contextmanager
def open_flow_session(
    params: Params, name: str, command: str = "lightlm train"
) -> Iterator[Session]:
    """Yield a session with the page of the current flow run; `command` is MLflow's source name."""
    page = FlowPage(flow_run.id)
    flow = FlowRun(str(flow_run.id or ""), str(flow_run.ui_url or ""))
    with open_session(params, name, run_tags(flow, command), page, flow) as session:
        note_flow_run(session.run, flow.id or None)
        try:
            yield session
        finally:
            page.close()
