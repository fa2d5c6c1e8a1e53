"""Run folders: claimed, locked and continued, with the decisions and the clock of a run.

An unfinished run of the same params is continued after the death of its process. Its decisions are
in a journal; its lock shows whether a process works on it; its clock counts across deaths.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightlm.budget.ledger import KEPT_EVERY_SECONDS, Ledger, LedgerKeeper, Spent, read_spent
from lightlm.budget.neighbors import CpuWatch
from lightlm.energy import EnergyMeter
from lightlm.errors import BusyError, InputError
from lightlm.json_object import JsonObject
from lightlm.params import Params
from lightlm.store.commit import remove_folder
from lightlm.store.journal import Journal, read_journal
from lightlm.store.lock import find_holder, hold_lock
from lightlm.store.stage import fingerprint
from lightlm.tracking.record import Metrics, read_records

LOCK = ".run.lock"
LEDGER = "budget.journal"
CHECKPOINTS = "checkpoints"
MODEL = "model"
OVER = "over"
CLAIM = ".claim.lock"

ALIVE_SECONDS = 10 * KEPT_EVERY_SECONDS
"""Seconds since the last write of the clock's journal up to which its run counts as alive."""

LOOK_SECONDS = 5.0
RETRY_SECONDS = 0.1
"""Seconds to try for a run's lock that only a live process should hold, and between tries."""

NEWEST = 50
"""Run folders that are looked at for neighbors."""

SHOWN = 8
"""Runs that an error message names."""

CONTINUED = "continued"

RECORDED_EVENTS = {"train/loss": "StepDone", "validation/bits_per_byte": "Validated"}
"""Metric -> the event that it is of."""


class Run:
    """One run's folder, locked by this process, with its clock and what it decided so far."""

    def __init__(
        self, folder: Path, name: str, params: Params, started_at: float | None, lock: ExitStack
    ) -> None:
        self.folder = folder
        self.name = name
        self._stack = lock
        self.cpu = CpuWatch()
        self.slowdown = 1.0
        """Factor by which neighbors make this run's work take longer."""
        path = journal_of(folder, name, params)
        self._decisions = read_decisions(path)
        self._journal = Journal(path)
        self._stack.callback(self._journal.close)
        self.spent = read_spent(folder / LEDGER)
        meter = EnergyMeter(self.spent.joules if self.is_continued else None)
        self.ledger = Ledger(
            params.budget.hours,
            started_at=started_at,
            clock=time.monotonic,
            spent=self.spent,
            meter=meter,
        )

        self._stack.enter_context(meter)
        self._stack.enter_context(LedgerKeeper(self.ledger, folder / LEDGER))

    @property
    def is_continued(self) -> bool:
        """Whether a process before this one began it."""
        return self.spent != Spent()

    @property
    def has_checkpoint(self) -> bool:
        """Whether training has come far enough to be continued, or registered; not yet verified."""
        folder = self.folder / CHECKPOINTS
        saved = (
            any(path.name.startswith("step-") for path in folder.iterdir())
            if folder.is_dir()
            else False
        )
        return saved or (self.folder / MODEL).exists()

    @property
    def is_scored(self) -> bool:
        """Whether model and score are there already: only the registration is left."""
        return self.decided("score") is not None and (self.folder / MODEL).exists()

    def decided(self, name: str) -> Any:
        """Return what the run decided under `name`; None where it has not."""
        return self._decisions.get(name)

    def decide(self, name: str, value: Any) -> None:
        """Keep a decision, as JSON, so that a continued run does not decide anew.

        Raises:
            StoreError: the disk refused.
        """
        self._journal.append({"name": name, "value": value}, durable=True)
        self._decisions[name] = value

    def decide_once(self, name: str, choose: Callable[[], Any]) -> Any:
        """Return what was decided under `name`, or decide it now."""
        if name not in self._decisions:
            self.decide(name, choose())
        return self._decisions[name]

    def forget(self, names: Iterable[str]) -> None:
        """Drop decisions, with all that was trained on them: what they rested on has changed."""
        self.drop_checkpoints()
        remove_folder(self.folder / MODEL)
        for name in [name for name in names if name in self._decisions]:
            self._journal.append({"name": name, "value": None}, durable=True)
            del self._decisions[name]

    def end(self, how: str) -> None:
        """Note that the run is over and is not to be continued; only its model stays."""
        self.decide(OVER, how)
        self.drop_checkpoints()

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints, which a continued run would need."""
        remove_folder(self.folder / CHECKPOINTS)

    def close(self) -> None:
        """Stop the clock and let go of the lock; more than once does no harm."""
        self._stack.close()


def name_run_folder(home: Path) -> Path:
    """Return a new folder's path under LIGHTLM_HOME/runs: sorted by time, never taken twice."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return home / "runs" / f"{stamp}-{secrets.token_hex(3)}"


def claim_run(
    home: Path,
    name: str,
    params: Params,
    *,
    started_at: float | None = None,
    is_fresh: bool = False,
) -> Run:
    """Return the newest run of the same params if it is unfinished and dead, else a new one.

    With `is_fresh` always a new one; the unfinished one then is over, or goes on in parallel.

    Raises:
        BusyError: another process works on the same run now.
        StoreError: the disk refused.
    """
    # Commands that start together look one after the other: the second then finds the first one's
    # run.
    with hold_lock(home / CLAIM):
        try:
            unfinished = find_unfinished(home, name, params, started_at)
        except BusyError:
            if not is_fresh:
                raise
            unfinished = None
        if unfinished is not None and is_fresh:
            unfinished.end("given up for a fresh start")
            unfinished.close()
        elif unfinished is not None:
            return unfinished

        folder = name_run_folder(home)
        stack = ExitStack()
        stack.enter_context(hold_lock(folder / LOCK, wait=False))
        return Run(folder, name, params, started_at, stack)


def find_unfinished(home: Path, name: str, params: Params, started_at: float | None) -> Run | None:
    """Return the newest run of the same params, locked, if it is unfinished.

    Raises:
        BusyError: its process lives.
    """
    journal = journal_of(Path(), name, params).name
    found = sorted((home / "runs").glob(f"*/{journal}"), reverse=True)
    if not found or OVER in read_decisions(found[0]):
        return None

    folder = found[0].parent
    stack = ExitStack()
    deadline = time.monotonic() + LOOK_SECONDS

    while True:
        try:
            stack.enter_context(hold_lock(folder / LOCK, wait=False))
            break
        except BusyError as error:
            if is_alive(folder) or time.monotonic() > deadline:
                holder = str(error).partition(";")[0]
                raise BusyError(
                    f"{holder}: the same run is going on; `lightlm watch` follows it, --fresh "
                    "trains alongside it"
                ) from None
            time.sleep(RETRY_SECONDS)  # somebody looks whether it is over, for a moment

    if OVER in read_decisions(found[0]):  # it ended while its lock was asked for
        stack.close()
        return None

    return Run(folder, name, params, started_at, stack)


def find_run(
    home: Path, named: str | None, counts: Callable[[Path], bool], kind: str = "run"
) -> Path:
    """Return a run's folder: a path, a name under LIGHTLM_HOME/runs, its beginning or its end; None
    is the newest. Only folders count of which `counts` is true: those of a `kind` of run.

    Raises:
        InputError: there is none, or several begin or end so.
    """
    if named is not None and counts(path := Path(named).expanduser()):
        return path

    runs = home / "runs"
    known = sorted(folder for folder in runs.glob("[!.]*") if counts(folder))
    if not known:
        raise InputError(f"there is no {kind} in {runs}; run `lightlm train` first")
    if named is None:
        return known[-1]

    exact = [folder for folder in known if folder.name == named]
    found = exact or [
        folder
        for folder in known
        if folder.name.startswith(named) or folder.name.endswith(f"-{named}")
    ]
    if named and len(found) == 1:
        return found[0]

    listed = ", ".join(folder.name for folder in (found or known)[-SHOWN:])
    several = f"{len(found)} {kind}s begin or end" if found else f"no {kind} begins or ends"
    raise InputError(f"{several} with {named!r} in {runs}; give one of {listed}")


def count_live_runs(home: Path, own: Path) -> int:
    """Return how many other runs of this home a process of this machine works on now."""
    folders = sorted((home / "runs").glob("*/"), reverse=True)[:NEWEST]
    return sum(folder.name != own.name and is_alive(folder) for folder in folders)


def is_alive(folder: Path) -> bool:
    """Return whether a process of this machine works on a run: its clock runs, with no end yet."""
    try:
        is_fresh = time.time() - (folder / LEDGER).stat().st_mtime < ALIVE_SECONDS
        if not is_fresh or any(
            OVER in read_decisions(path) for path in folder.glob("run-*.journal")
        ):
            return False
        return find_holder(folder / LOCK) is not None
    except OSError:
        return False


def journal_of(folder: Path, name: str, params: Params) -> Path:
    """Return the path of a run's journal, whose name contains a digest of the params."""
    values = params.model_dump(mode="json")
    for text in (values["dataset"], *values["dataset"]["others"]):
        source = Path(text["source"]).expanduser()
        if source.exists():
            text["source"] = str(source.resolve())
    for key in ("others", "mask"):  # runs from before there were these are found by the same name
        if not values["dataset"][key]:
            del values["dataset"][key]
    for key in ("trackio", "wandb", "grams_co2_per_kwh"):
        if values["tracking"][key] is None:
            del values["tracking"][key]
    return folder / f"run-{fingerprint('run', {'name': name, 'params': values})}.journal"


def read_decisions(path: Path) -> JsonObject:
    """Return what a run decided, by name."""
    decisions: JsonObject = {}
    for record, _ in read_journal(path):
        decisions[str(record.get("name"))] = record.get("value")
    return {name: value for name, value in decisions.items() if value is not None}


def last_recorded_steps(folder: Path) -> dict[str, int]:
    """Return the last step in a run's record, by the name of the event."""
    last: dict[str, int] = {}
    for record, _ in read_records(folder):
        if isinstance(record, Metrics):
            for metric, event in RECORDED_EVENTS.items():
                if metric in record.values:
                    last[event] = max(record.step, last.get(event, -1))
    return last
