"""The command that sends MLflow and Prefect what they missed: sync."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from lightlm.errors import TrackingError
from lightlm.store.home import find_home
from lightlm_flows.cli.options import AsJson, Quiet, print_json


def sync(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Send MLflow and Prefect what they missed of all runs.

    Finishes registrations, and ends flow runs whose process is gone.
    """
    from lightlm.console.escape import escape_for_terminal
    from lightlm.tracking.sync import sync as sync_runs
    from lightlm_flows.prefect_api import embedded

    home = find_home()

    stderr = sys.stderr

    def log(message: str) -> None:
        if not quiet:
            stderr.write(escape_for_terminal(message) + "\n")

    embedded.apply_settings(home)
    with embedded.open_api() as why_not:
        # MLflow tells what it does on both streams, and warns of what is meant so; its errors come
        # as such.
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            synced = sync_runs(home, log)
        ended = []
        prefect_error = why_not
        if why_not is None:
            ended, prefect_error = reconcile_states(home)

    failed = [one for one in synced if one.outcome == "failed"]
    if as_json:
        runs = [
            {
                "run": one.folder.name,
                "outcome": one.outcome,
                "records": one.num_records,
                "version": one.version,
                "error": one.error,
            }
            for one in synced
        ]
        print_json({"runs": runs, "flow_runs": ended, "prefect_error": prefect_error})

    for one in synced:
        details = [f"{one.num_records:,} records", one.version, one.error]
        log(f"{one.folder.name}: {one.outcome}; {'; '.join(filter(None, details))}")

    for line in ended:
        log(line)
    if prefect_error:
        log(f"Prefect was not asked: {prefect_error}")
    if not synced and not ended:
        log("Nothing to send: MLflow and Prefect know of every run.")

    if failed:
        raise TrackingError(
            f"{len(failed)} of {len(synced)} runs could not be sent to MLflow ({failed[0].error}); "
            "their records are kept, run `lightlm sync` again when it answers"
        )


def reconcile_states(home: Path) -> tuple[list[str], str | None]:
    """Return what was ended in Prefect, and why the rest was not."""
    from lightlm_flows.prefect_api.reconciling import reconcile

    try:
        return reconcile(home), None
    except Exception as error:  # noqa: BLE001  (httpx and Prefect raise their own; MLflow's part is done all the same)
        return [], f"{type(error).__name__}: {error}".splitlines()[0]
