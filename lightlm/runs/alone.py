"""A run or a plan in a process of its own, without an orchestrator, for `lightlm.train` and others.

`python -P -m lightlm.runs.alone REQUEST`, where REQUEST is JSON. The result is one JSON object on
standard output; lines of progress, and the error that ends it, go to standard error.
"""

import json
import os
import sys
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from lightlm.budget.ledger import find_process_start
from lightlm.console.escape import escape_for_terminal
from lightlm.errors import Interrupted, LightLMError
from lightlm.first_signal import FirstSignal
from lightlm.json_object import JsonObject
from lightlm.params import Overrides, Params, load_params
from lightlm.redaction import redact
from lightlm.runs import stages
from lightlm.runs.base_start import choose_base, take_tokenizer
from lightlm.runs.champion import ask_again, ask_for_champion, score_champion
from lightlm.runs.folder import claim_run
from lightlm.runs.history import close_summary
from lightlm.runs.input_checks import check_sources
from lightlm.runs.launch import Launch
from lightlm.runs.naming import add_name, list_model_names, name_run
from lightlm.runs.orchestrator import NO_FLOW_RUN, SilentPage
from lightlm.runs.planning import make_plan
from lightlm.runs.recording import run_tags
from lightlm.runs.results import summarize
from lightlm.runs.session import Session, open_session, start_worker
from lightlm.runs.summary import RunSummary
from lightlm.runs.values import Outcome, begin_training
from lightlm.store.home import find_home
from lightlm.tracking.sync import sync

COMMAND = "lightlm.train"
"""MLflow's name of what started the run."""


class Request(BaseModel, frozen=True, extra="forbid"):
    """What to do; the values are those of `load_params`, and "sync" needs none."""

    task: Literal["train", "plan", "sync"]
    preset: str = "base"
    overrides: Overrides = {}
    dataset: str | None = None
    hours: float | str | None = None
    name: str | None = None

    def load(self) -> Params:
        """Return the params that it asks for.

        Raises:
            ParameterError: an unknown parameter, or a value out of bounds.
        """
        overrides = add_name(self.overrides, self.name)
        return load_params(self.preset, overrides, dataset=self.dataset, hours=self.hours)


def train_alone(home: Path, params: Params, launch: Launch, command: str = COMMAND) -> RunSummary:
    """Return the summary of a run whose stages are those of train-flow; resume an unfinished one.

    `command` is MLflow's name of what started it.

    Raises:
        LightLMError: as the stages do.
    """
    with ExitStack() as stack:
        run = launch.run or claim_run(home, name_run(params), params, started_at=launch.started_at)
        stack.callback(run.close)
        with run.ledger.stage("start-up"):
            worker = start_worker(run.folder, home, is_needed=not run.is_scored)
            stack.callback(worker.stop)

        launch.run = run
        launch.worker = worker
        tags = run_tags(NO_FLOW_RUN, command)
        with open_session(
            home, params, name_run(params), tags, SilentPage(), NO_FLOW_RUN, launch
        ) as session:
            summary = run_stages(session, params)

        return close_summary(summary, run, home)


def run_stages(session: Session, params: Params) -> RunSummary:
    """Return the summary of the stages, in the order of train-flow."""
    question = ask_for_champion(session)
    system = stages.check_system(session)
    machine = stages.measure_matrix_rate(session, system)
    material = stages.materialize_subset(session, machine)
    question = ask_again(session, question, material)
    machine = stages.measure_training_rate(session, machine)
    base = choose_base(session, material, machine, system)
    own = take_tokenizer(params, base)
    tokenizer = stages.prepare_tokenizer(session, own, material, machine)
    shards = stages.tokenize_subset(session, material, tokenizer)
    counted = stages.count_tokens(session, own, base, shards)
    champion = score_champion(session, question, material, machine)
    start = begin_training(own, champion, base)
    plan = stages.plan_budget(session, start, system, machine, material, shards, counted)
    trained = stages.train_model(session, start, plan, tokenizer, shards)
    evaluated = stages.evaluate_model(session, plan, trained, shards)
    outcome = Outcome(system, material, champion, start, plan, trained, evaluated)
    registered = stages.register_model(session, outcome)
    return summarize(session, outcome, registered)


def plan_alone(home: Path, params: Params) -> JsonObject:
    """Return what `lightlm plan --json` prints, without the measurements."""
    planned = make_plan(home, params, None, is_quiet=False)
    return {
        "plan": planned.plan.model_dump(mode="json"),
        "forecast": [entry.model_dump(mode="json") for entry in planned.forecasts],
        "model_name": list_model_names(params, planned.text_name)[0],
        "shape": planned.plan.summary(),
    }


def sync_alone(home: Path) -> JsonObject:
    """Return the version, or None, of each run that MLflow has only now, by the run's folder."""
    with redirect_stdout(sys.stderr):  # MLflow prints addresses
        synced = sync(home)
    return {one.folder.name: one.version for one in synced}


def run(request: Request, launch: Launch) -> JsonObject:
    """Return the result of a request.

    Raises:
        LightLMError: it cannot be had.
    """
    home = find_home()
    if request.task == "sync":
        return sync_alone(home)

    params = request.load()
    check_sources(home, params)
    if request.task == "plan":
        return plan_alone(home, params)
    return train_alone(home, params, launch).model_dump(mode="json")


def end_on_signal(launch: Launch) -> None:
    """Let the first SIGINT or SIGTERM end the run in order; a further one ends the process."""

    def mark() -> None:
        launch.is_stopping = True

    FirstSignal(mark=mark).listen("SIGINT", "SIGTERM")


def main(word: str) -> int:
    """Run a request; print its result, or its error in one line; return the exit code."""
    launch = Launch(find_process_start())
    end_on_signal(launch)
    try:
        result = run(Request.model_validate_json(word), launch)
    except LightLMError as error:
        message = escape_for_terminal(redact(" ".join(str(error).splitlines())))
        sys.stderr.write(f"lightlm: {message}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("lightlm: stopped; the same call goes on\n")
        return Interrupted.exit_code

    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Nothing is left to be done: taking the interpreter apart would take half a second.
    os._exit(code)
