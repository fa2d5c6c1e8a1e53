"""The launch of a flow by a command: clock, worker and Prefect's API first, then its result."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lightlm.params import Overrides

if TYPE_CHECKING:
    from lightlm.params import Params
    from lightlm.runs.folder import Run
    from lightlm.runs.launch import Launch
    from lightlm.runs.summary import RunSummary
    from lightlm_flows.prefect_api.embedded import EmbeddedApi

Result = TypeVar("Result")

PREFECT_SECONDS = 10.0
"""Seconds of the budget below which a continued run does without Prefect: on two cores its import
and its API take 5.
"""

LATELY = 4
LATELY_SECONDS = 120.0
"""Newest run folders that are looked at for a run that died, and seconds since its last sign of
life; for an older one Prefect's API starts, and is ended if no time is left.
"""

CROWDED_SLOWDOWN = 1.25
"""Factor by which a command has waited for a core, from which it is not alone."""

ENDS_SECONDS = 13.0
ENDS_FRACTION = 0.25
"""Seconds that the start and the end of a run take with Prefect, alone on two cores, and the part
of a budget that they may take in a crowd: three runs of 36 s at once took 45 s each with Prefect's
three servers, and 21 to 28 s without; three of 72 s took 75 s with them.
"""

ENDS_SYNCS = 60
"""Writes that the disk confirms meanwhile."""

COMMAND = "lightlm train"
"""MLflow's name of what started the run."""

ALWAYS = "LIGHTLM_PREFECT"
"""Variable with which every run waits for Prefect where it is "always"."""


def start_prefect(home: Path) -> "EmbeddedApi | None":
    """Return Prefect's API, which takes longest of all to start: a command starts it first. None
    where a person named a server.
    """
    from lightlm_flows.prefect_api import embedded

    # The terminal has the panel and one clear line for an error; Prefect keeps its record of both.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    embedded.apply_settings(home)
    return embedded.start_api()


def launch_training(
    home: Path,
    params: "Params",
    dataset: str | None,
    preset: str,
    overrides: Overrides,
    launch: "Launch",
) -> "RunSummary":
    """Return the summary of train-flow; of its stages alone where a crowd or a slow disk leaves no
    time for Prefect, which gets its record of the run at the next start.
    """
    from lightlm.budget.ledger import SECONDS_PER_HOUR
    from lightlm.budget.neighbors import find_own_slowdown
    from lightlm_flows.prefect_api.embedded import names_server

    seconds = params.budget.hours * SECONDS_PER_HOUR
    with ExitStack() as stack:
        if had_run_lately(home):  # maybe this one, which died: what is left decides
            launch.run = claim_for(home, params, launch)
            stack.callback(launch.run.close)
            seconds = launch.run.ledger.remaining_seconds
            if not names_server() and is_near_its_end(launch.run):
                return train_without_prefect(home, params, launch)

        if has_time_for_prefect(seconds, find_own_slowdown(), time_home_sync(home)):
            api = start_prefect(home)
            return run_training(home, params, dataset, preset, overrides, launch, api)

        log_aside(
            "this machine's cores or its disk are busy, and these hours leave no time to wait for "
            "Prefect: its page of this run comes with the next start"
        )
        return train_without_prefect(home, params, launch)


def had_run_lately(home: Path) -> bool:
    """Return whether a run of this home was alive in the last LATELY_SECONDS. Its answer imports
    nothing, so that Prefect's API starts at once where there was none.
    """
    journals = [path / "budget.journal" for path in sorted((home / "runs").glob("2*"))[-LATELY:]]
    now = time.time()
    return any(path.exists() and now - path.stat().st_mtime < LATELY_SECONDS for path in journals)


def is_near_its_end(run: "Run") -> bool:
    """Return whether a continued run has no time left to wait for Prefect's API, and say so."""
    is_late = run.is_continued and run.ledger.remaining_seconds < PREFECT_SECONDS
    if not is_late or always_with_prefect():
        return False
    log_aside(
        "no time is left to wait for Prefect; its page of this run gets the end at the next start"
    )
    return True


def always_with_prefect() -> bool:
    """Return whether every run is to wait for Prefect, however little time that leaves it."""
    return os.environ.get(ALWAYS) == "always"


def claim_for(home: Path, params: "Params", launch: "Launch") -> "Run":
    """Return the run that a command works on, new or continued; lock it."""
    from lightlm.runs.folder import claim_run
    from lightlm.runs.naming import name_run

    return claim_run(
        home, name_run(params), params, started_at=launch.started_at, is_fresh=launch.is_fresh
    )


def has_time_for_prefect(budget_seconds: float, slowdown: float, sync_seconds: float) -> bool:
    """Return whether a run can wait for Prefect's start where a crowd makes everything take
    `slowdown` times as long, and the disk `sync_seconds` for each write that it confirms. A server
    that a person named gets every run.
    """
    from lightlm.budget.reserve import SLOW_SYNC_SECONDS
    from lightlm_flows.prefect_api.embedded import names_server

    is_undisturbed = slowdown < CROWDED_SLOWDOWN and sync_seconds < SLOW_SYNC_SECONDS
    if is_undisturbed or always_with_prefect() or names_server():
        return True
    ends_seconds = ENDS_SECONDS * slowdown + ENDS_SYNCS * sync_seconds
    return ends_seconds <= ENDS_FRACTION * budget_seconds


def time_home_sync(home: Path) -> float:
    """Return the seconds that the home's disk takes to confirm a write; 0 where there is no home
    yet, or it cannot be written to.
    """
    from lightlm.store.disk import time_sync

    try:
        return time_sync(home)
    except OSError:
        return 0.0


def run_training(
    home: Path,
    params: "Params",
    dataset: str | None,
    preset: str,
    overrides: Overrides,
    launch: "Launch",
    api: "EmbeddedApi | None",
) -> "RunSummary":
    """Return the train-flow's summary. The flow is imported while `api` starts, then the worker
    imports torch and the outbox MLflow: all at once on two cores would hold the API up.
    """
    from lightlm.runs.session import start_worker

    with ExitStack() as stack:
        run = launch.run = launch.run or claim_for(home, params, launch)
        stack.callback(run.close)
        if api is not None and is_near_its_end(run):
            api.stop()
            return train_without_prefect(home, params, launch)

        with run.ledger.stage("start-up"):
            from lightlm.runs.history import close_summary
            from lightlm.tracking.outbox import Outbox
            from lightlm_flows.train import train_flow

            worker = start_worker(run.folder, home, is_needed=not run.is_scored)
            stack.callback(worker.stop)
            launch.outbox = Outbox.start(home, run.folder)
            stack.callback(launch.outbox.close, 0.0)  # of a run that did not begin
            stack.enter_context(run_flows(home, api, launch))
        launch.worker = worker
        summary = keep_result(
            lambda: train_flow(
                hours=params.budget.hours, dataset=dataset, preset=preset, overrides=overrides
            ),
            launch,
            lambda: launch.summary,
        )
        return close_summary(summary, run, home)


def train_without_prefect(home: Path, params: "Params", launch: "Launch") -> "RunSummary":
    """Return the summary of a run, new or near its end, for which Prefect is neither imported nor
    waited for.
    """
    from lightlm.tracking.outbox import Outbox
    from lightlm_flows.prefect_api.reconciling import record_later

    with ExitStack() as stack:
        launch.run = launch.run or claim_for(home, params, launch)
        stack.callback(launch.run.close)
        record_later(launch.run, params, COMMAND)
        # MLflow's import takes longest now: it starts before those of the stages.
        launch.outbox = Outbox.start(home, launch.run.folder)
        stack.callback(launch.outbox.close, 0.0)  # of a run that did not begin
        from lightlm.runs.alone import train_alone

        return train_alone(home, params, launch, COMMAND)


@contextmanager
def run_flows(home: Path, api: "EmbeddedApi | None", launch: "Launch") -> Iterator[None]:
    """Run flows that find `launch`, with Prefect's API, or without one where none answers; then a
    notice says so.

    Raises:
        KeyboardInterrupt: a signal has asked for the end, which Prefect's import drops: it builds
            models, and warns of what hinders it.
    """
    from lightlm.errors import LightLMError
    from lightlm_flows.prefect_api import embedded
    from lightlm_flows.prefect_api.flow_session import LAUNCH

    # Prefect's handler would say so at each line that its API does not take.
    logging.raiseExceptions = False
    launch.check_stop()
    with ExitStack() as stack:
        try:
            if api is not None:
                api.wait()
            why_not = embedded.find_trouble() if api is None else None
        except LightLMError as error:
            why_not = str(error)
        if why_not is not None:
            log_aside(
                "Prefect's API cannot be used; this run continues without Prefect's record of it "
                f"({why_not})"
            )
            stack.enter_context(embedded.without_prefect())
        else:
            stack.enter_context(embedded.without_retries())
            if api is not None:
                stack.enter_context(embedded.without_heartbeats())
        launch.check_stop()
        LAUNCH.set(launch)
        yield


def log_aside(message: str) -> None:
    """Print a line on standard error, outside the panel."""
    from lightlm.console.escape import escape_for_terminal
    from lightlm.redaction import redact

    sys.stderr.write(f"lightlm: {escape_for_terminal(redact(message))}\n")


def keep_result(
    run_flow: "Callable[[], Result]", launch: "Launch", find_result: "Callable[[], Result | None]"
) -> "Result":
    """Return a flow's result, or raise its error, even if Prefect could record neither.

    A flow that Prefect could not even begin runs without it.
    """
    from prefect.exceptions import CancelledRun

    from lightlm.errors import LightLMError
    from lightlm_flows.prefect_api import embedded

    try:
        return run_flow()
    except LightLMError:
        raise
    except CancelledRun as error:  # a person stopped it, maybe before its session was open
        raise launch.failure or KeyboardInterrupt(str(error)) from None
    except Exception as error:  # httpx and Prefect raise their own
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        if (result := find_result()) is not None:
            log_aside(
                f"Prefect's API went down ({why}); the run is complete, and Prefect gets its "
                "end at the next start"
            )
            return result
        if launch.failure is not None:
            log_aside(
                f"Prefect's API went down ({why}); Prefect gets the failure at the next start"
            )
            raise launch.failure from None
        launch.check_stop()
        if launch.progress is not None or not is_of_prefect(error):
            raise
        log_aside(f"Prefect did not begin the flow; it runs without Prefect's record of it ({why})")
        with embedded.without_prefect():
            return run_flow()


def is_of_prefect(error: BaseException) -> bool:
    """Return whether an error comes from Prefect or from the connection to its API."""
    raised_in = [
        frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)
    ][-1:]
    names = {name.partition(".")[0] for name in (type(error).__module__, *raised_in)}
    return not names.isdisjoint(("prefect", "httpx", "httpcore"))
