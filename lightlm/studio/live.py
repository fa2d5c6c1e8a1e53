"""Runs as they go: those of the studio and all others of this home, from what they record.

A run is followed as by `lightlm watch`, and stopped as by Ctrl-C where it was started.
"""

import io
import math
import signal
import threading
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

import psutil
from pydantic import BaseModel, TypeAdapter

from lightlm.console.panel import describe_plan, predict_curve
from lightlm.console.progress import Progress
from lightlm.console.terminal import open_console
from lightlm.errors import InputError
from lightlm.json_object import JsonObject
from lightlm.runs.finished import read_summary
from lightlm.runs.folder import LOCK as RUN_LOCK
from lightlm.runs.folder import find_run
from lightlm.runs.stage_names import STAGES
from lightlm.runs.summary import describe_summary
from lightlm.runs.watching import FollowedRun, format_end
from lightlm.store.lock import describe_holder, find_holder
from lightlm.store.remembered import Remembered
from lightlm.studio.jobs import Jobs
from lightlm.studio.requests import TrainRequest
from lightlm.tracking.record import JOURNAL
from lightlm.tracking.recorder import LOCK
from lightlm.tracking.runs import RecordedRun, is_alive, list_runs

SHOWN_RUNS = 30
"""Runs of the list, the newest."""

MOST_FOLLOWED = 8
"""Runs that are followed at a time; of more, those looked at last."""

SHOWN_LINES = 200
"""Lines of a run's progress that are shown, the newest."""

FORECAST_POINTS = 40
"""Points of the forecast's curve."""


class StartedRun(BaseModel):
    """A run that the studio has started, and what for: so it can be continued."""

    run: str
    request: TrainRequest
    started_in: Path | None = None
    """The current folder, at which the relative paths of the request begin."""


class LiveRun:
    """One run that is followed."""

    def __init__(self, folder: Path) -> None:
        self.followed = FollowedRun(folder)
        self._stream = io.StringIO()
        self._lines: list[str] = []
        self._display = Progress(
            self.followed.clock, console=open_console(self._stream), is_here=False
        )
        self._lock = threading.Lock()

    def look(self) -> JsonObject:
        """Take in what the run has recorded since the last look; return what the page shows."""
        with self._lock:
            self.followed.look(self._display)
            written = self._stream.getvalue()
            self._stream.seek(0)
            self._stream.truncate()
            self._lines = [*self._lines, *written.splitlines()][-SHOWN_LINES:]
            return self._describe()

    def _describe(self) -> JsonObject:
        followed = self.followed
        display = self._display
        numbers = display.numbers
        plan = display.plan
        summary = None
        if followed.status == "FINISHED":
            summary = read_summary(followed.folder)
        if followed.status is not None or not is_alive(followed.folder):
            followed.clock.is_running = False
        if summary is not None:
            followed.clock.set(summary.elapsed_seconds)

        sample = numbers.sample
        return {
            "run": followed.folder.name,
            "name": followed.name,
            "status": followed.status,
            "ending": format_end(followed) if followed.status else "",
            "stage": display.stage,
            "elapsed": followed.clock.elapsed_seconds,
            "budget": followed.clock.budget_seconds,
            "progress": numbers.progress,
            "step": numbers.step,
            "loss": drop_infinite(numbers.loss),
            "bits_per_byte": drop_infinite(numbers.bits_per_byte),
            "tokens_per_second": numbers.tokens_per_second,
            "tokens": numbers.total_tokens,
            "phrases": describe_plan(numbers, plan),
            "shape": plan and plan.summary(),
            "predicted": plan and [
                plan.predicted_bits_per_byte, plan.predicted_low, plan.predicted_high
            ],
            "curve": numbers.bits_curve(plan.bytes_per_token) if plan else [],
            "held_out": numbers.held_out,
            "forecast": list_forecast(display),
            "sample": sample and {"step": sample.step, "text": sample.prompt + sample.text},
            "ledger": name_stages(summary.ledger if summary else followed.entries),
            "lines": self._lines,
            "report": summary and asdict(describe_summary(summary)),
            "version": summary and {"name": summary.model_name, "version": summary.model_version},
        }  # fmt: skip


class LiveRuns:
    """The runs of a home."""

    def __init__(self, home: Path, jobs: Jobs) -> None:
        self.home = home
        self._jobs = jobs
        self._followed: OrderedDict[str, LiveRun] = OrderedDict()
        self._lock = threading.Lock()
        self._started = Remembered(
            home / "studio" / "started.json", TypeAdapter(StartedRun), SHOWN_RUNS
        )

    def list(self) -> list[JsonObject]:
        """Return the newest runs."""
        found = list_runs(self.home, SHOWN_RUNS)
        self._remember(found)
        known = {one.run for one in self._started.read()}
        return [
            run.model_dump(mode="json") | {"can_continue": is_open(run) and run.run in known}
            for run in found
        ]

    def look(self, name: str) -> JsonObject:
        """Return what a run does now.

        Raises:
            InputError: there is no such run.
        """
        with self._lock:
            live = self._followed.get(name)
            if live is None:
                live = LiveRun(self._find(name))
                self._followed[name] = live
            self._followed.move_to_end(name)
            while len(self._followed) > MOST_FOLLOWED:
                self._followed.popitem(last=False)
        return live.look()

    def stop(self, name: str) -> None:
        """Ask a run's process to end in order; what it reached stays.

        Raises:
            InputError: there is no such run, or no process of this machine works on it.
        """
        holder = find_holder(self._find(name) / LOCK)
        if holder is None:
            raise InputError(f"no process of this machine works on {name}; nothing to stop")
        try:
            psutil.Process(holder).send_signal(signal.SIGTERM)
        except psutil.Error as error:
            raise InputError(f"the process of {name} cannot be stopped: {error}") from None

    def find_started(self, name: str) -> StartedRun:
        """Return what a run was started with by a studio of this home.

        Raises:
            InputError: no studio has started it.
        """
        self._remember(list_runs(self.home, SHOWN_RUNS))
        for one in self._started.read():
            if one.run == name:
                return one
        raise InputError(f"the studio has not started {name}; the command that did continues it")

    def _find(self, name: str) -> Path:
        return find_run(self.home, name, lambda folder: (folder / JOURNAL).is_file())

    def _remember(self, found: "list[RecordedRun]") -> None:
        """Keep what the runs of studios' commands were started with."""
        known = {one.run for one in self._started.read()}
        unknown = [run for run in found if run.run not in known]
        trainings = {one.holder: one for one in self._jobs.read_trainings()} if unknown else {}
        for run in unknown:
            folder = self.home / "runs" / run.run
            # The lock of the record goes through other hands where a later run sends its rest.
            holders = (describe_holder(folder / name) for name in (LOCK, RUN_LOCK))
            training = next((trainings[one] for one in holders if one in trainings), None)
            if training is not None:
                request = TrainRequest.model_validate(training.request)
                self._started.record(
                    StartedRun(run=run.run, request=request, started_in=training.started_in)
                )


def is_open(run: RecordedRun) -> bool:
    """Return whether the same command would continue a run."""
    return run.state in ("stopped", "died")


def list_forecast(display: Progress) -> list[tuple[float, float]]:
    """Return the bits per byte that the plan forecasts over the fraction of the training time."""
    predict = None if display.plan is None else predict_curve(display.plan)
    if predict is None:
        return []
    places = [index / FORECAST_POINTS for index in range(1, FORECAST_POINTS + 1)]
    return [(place, predict(place)) for place in places]


def drop_infinite(value: float | None) -> float | None:
    """Return a number that JSON has; None for the loss of a training that diverged."""
    return value if value is not None and math.isfinite(value) else None


def name_stages(ledger: dict[str, float]) -> list[tuple[str, float]]:
    """Return the stages of a ledger in a person's words, with their seconds."""
    return [(STAGES.get(name, name.capitalize()), seconds) for name, seconds in ledger.items()]
