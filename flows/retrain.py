"""retrain-flow: a challenger learns a changed data set, and becomes champion if it is better."""

import time
from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from lightlm.params import Hours, Name, Overrides, Params, load_params
from lightlm.rendering.page import Page
from lightlm.runs.champion import know_champion
from lightlm.runs.dataset_change import DatasetChange
from lightlm.runs.naming import add_name, name_run
from lightlm.runs.results import summarize
from lightlm.runs.session import LOGGER
from lightlm.runs.start import confirm_start
from lightlm.runs.summary import RetrainSummary
from lightlm.runs.values import Outcome
from lightlm.store.home import find_home
from lightlm_flows import tasks
from lightlm_flows.prefect_api.artifacts import FlowPage, show_logs
from lightlm_flows.prefect_api.flow_session import (
    LAUNCH,
    cancel_when_stopped,
    open_flow_session,
)


def name_flow_run() -> str:
    """Return "retrain-1h-wikitext": what Prefect's pages show."""
    values = flow_run.parameters
    overrides = add_name(values.get("overrides"), values.get("name"))
    params = load_params(
        values.get("preset", "retrain"),
        overrides,
        dataset=values.get("dataset"),
        hours=values.get("hours"),
    )

    if values.get("dataset") or "dataset.source" in overrides:
        return name_retraining(params)

    # The champion's data set, which the flow finds out; its name then completes this one.
    return f"retrain-{params.budget.hours:g}h-{params.tracking.model_name or 'champion'}"


def name_retraining(params: Params) -> str:
    """Return "retrain-1h-wikitext"."""
    return f"re{name_run(params)}"


@flow(name="retrain-flow", flow_run_name=name_flow_run, persist_result=False)
@cancel_when_stopped
def retrain_flow(
    hours: Hours | None = None,
    dataset: str | None = None,
    preset: str = "retrain",
    overrides: Overrides | None = None,
    force: bool = False,
    start: Literal["forecast", "scratch", "champion"] = "forecast",
    name: Name | None = None,
) -> RetrainSummary:
    """Train a challenger if the data set has changed; make it champion if it is shown to be better.

    Args:
        hours: Wall clock of the whole run, in hours; empty: the preset's.
        dataset: Hub id, path, or python-docs; empty: what the champion learned.
        preset: NAME of params/NAME.yaml, or a path of a YAML file; laid over params/base.yaml.
        overrides: Single values, as {"model.num_layers": 4}.
        force: Train although the data set is unchanged.
        start: Begin from scratch, from the champion's weights, or as the forecasts say.
        name: The registered model's name; empty: the newest model's, or one after the data set
            where one is given.
    """
    started_at = time.monotonic()
    home = find_home()
    params = tasks.find_text(home, preset, overrides, dataset, hours, name)
    show_logs()
    change, champion_version = tasks.look_for_changes(home, params)
    if not (change.is_changed or force):
        return leave_alone(params, change)

    with open_flow_session(home, params, name_retraining(params), "lightlm retrain") as session:
        if session.launch is None:  # else the clock runs since the process began
            session.ledger.exclude(started_at - session.ledger.started_at)
        session.page.rename(session.run.name)
        question = know_champion(session, champion_version)
        session.log(change.reason)
        system = tasks.check_system(session)
        machine = tasks.measure_matrix_rate(session, system)
        material = tasks.materialize_subset(session, machine)
        champion = tasks.score_champion(session, question, material, machine)
        begin = tasks.choose_where_to_start(session, start, champion, material, machine, system)
        tokenizer = tasks.prepare_tokenizer(session, begin.params, material, machine)
        shards = tasks.tokenize_subset(session, material, tokenizer)
        counted = tasks.count_tokens(session, begin.params, begin.base, shards)
        plan = tasks.plan_budget(session, begin, system, machine, material, shards, counted)
        begin, plan = confirm_start(session, begin, plan)
        trained = tasks.train_model(session, begin, plan, tokenizer, shards)
        evaluated = tasks.evaluate_model(session, plan, trained, shards)
        outcome = Outcome(system, material, champion, begin, plan, trained, evaluated)
        registered = tasks.register_model(session, outcome)
        run = summarize(session, outcome, registered)
        return keep_outcome(
            RetrainSummary(
                is_retrained=True,
                news=change,
                reason=run.promotion,
                start=begin.choice,
                comparison=run.comparison,
                run=run,
            )
        )


def leave_alone(params: Params, change: DatasetChange) -> RetrainSummary:
    """Return that nothing was trained, and show why."""
    page = FlowPage(flow_run.id)
    page.rename(name_retraining(params))
    reason = f"{change.reason}: nothing to do; force a retraining to train all the same"
    LOGGER.info(reason)
    page.markdown(
        "champion-decision",
        Page("Nothing to do", [reason]).to_markdown(),
        "Why nothing was trained",
    )

    page.close()
    return keep_outcome(RetrainSummary(is_retrained=False, news=change, reason=reason))


def keep_outcome(summary: RetrainSummary) -> RetrainSummary:
    """Return the summary, kept with the command too, where no orchestrator can lose it."""
    if (launch := LAUNCH.get()) is not None:
        launch.retraining = summary
    return summary
