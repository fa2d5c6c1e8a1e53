"""retrain-flow: a changed data set is learnt by a challenger, which becomes champion if it is shown to be better."""

import time
from typing import Any, Literal

from prefect import flow, task
from prefect.runtime import flow_run

from lightlm.budget.candidate import TextFacts
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.continuation import ChampionPast, Start, choose_start, fix_shape, forecast_continuation
from lightlm.budget.history import History
from lightlm.budget.plan import Plan
from lightlm.budget.planner import Planner
from lightlm.budget.probe import MachineRate, Probe
from lightlm.budget.reserve import ClosingTimes
from lightlm.budget.vocabulary import bytes_a_token_at, choose_vocab_sizes
from lightlm.data.subset import TextSubset
from lightlm.model.config import ModelConfig
from lightlm.params import Hours, Name, Params, load_params
from lightlm.system import SystemReport
from lightlm.tracking.page import Page
from lightlm.tracking.registry import ModelVersion, download
from lightlm_flows.artifacts import FlowPage, open_page, page_of, show_logs
from lightlm_flows.champion import Champion, know_champion, score_champion
from lightlm_flows.learning import measure_hardness
from lightlm_flows.naming import add_name, name_run
from lightlm_flows.news import DatasetNews, read_news
from lightlm_flows.outcome import summarize
from lightlm_flows.recording import run_tags
from lightlm_flows.relearning import choose_text
from lightlm_flows.session import LAUNCH, LOGGER, Session, open_session
from lightlm_flows.summary import RetrainSummary
from lightlm_flows.train import (
    STORY,
    check_system,
    evaluate_model,
    materialize_subset,
    measure_matrix_rate,
    plan_budget,
    prepare_tokenizer,
    register_model,
    tokenize_subset,
    train_model,
)


def name_flow_run() -> str:
    """Return "retrain-1h-wikitext": what Prefect's pages show."""
    values = flow_run.parameters
    overrides = add_name(values.get("overrides"), values.get("name"))
    params = load_params(
        values.get("preset", "retrain"), overrides, dataset=values.get("dataset"), hours=values.get("hours")
    )
    if values.get("dataset") or "dataset.source" in overrides:
        return name_retraining(params)
    # The champion's data set, which the flow finds out; its name then completes this one.
    return f"retrain-{params.budget.hours:g}h-{params.tracking.model_name or 'champion'}"


def name_retraining(params: Params) -> str:
    """Return "retrain-1h-wikitext"."""
    return f"re{name_run(params)}"


@flow(name="retrain-flow", flow_run_name=name_flow_run, persist_result=False)
def retrain_flow(
    hours: Hours | None = None,
    dataset: str | None = None,
    preset: str = "retrain",
    overrides: dict[str, Any] | None = None,
    force: bool = False,
    start: Literal["forecast", "scratch", "champion"] = "forecast",
    name: Name | None = None,
) -> RetrainSummary:
    """Train a challenger if the data set has changed, and make it champion if it is shown to be better.

    Args:
        hours: Wall clock of the whole run, in hours; empty: the preset's.
        dataset: Hub id, path, or python-docs; empty: what the champion learnt.
        preset: NAME of params/NAME.yaml, or a path of a YAML file; laid over params/base.yaml.
        overrides: Single values, as {"model.num_layers": 4}.
        force: Train although the data set is unchanged.
        start: Begin from scratch, from the champion's weights, or as the forecasts say.
        name: The registered model's name; empty: the newest model's, or one after the data set where one is given.
    """
    started_at = time.monotonic()
    params = find_text(preset, overrides, dataset, hours, name)
    show_logs()
    news, champion_version = look_for_changes(params)
    if not (news.is_changed or force):
        return leave_alone(params, news)
    with open_session(params, name_retraining(params), run_tags("lightlm retrain")) as session, open_page(session):
        if LAUNCH.get() is None:  # else the clock runs since the process began
            session.ledger.exclude(started_at - session.ledger.started_at)
        page_of(session).rename(session.run.name)
        know_champion(session, champion_version)
        session.say(news.reason)
        system = check_system(session)
        machine = measure_matrix_rate(session, system)
        subset = materialize_subset(session, machine)
        champion = score_champion(session, subset, machine)
        choose_where_to_start(session, start, champion, subset, machine, system)
        tokenizer = prepare_tokenizer(session, subset, machine)
        shards = tokenize_subset(session, subset, tokenizer)
        plan = plan_budget(session, system, machine, subset, shards)
        plan = confirm_start(session, plan)
        trained = train_model(session, plan, tokenizer, shards)
        score = evaluate_model(session, plan, trained, shards)
        version = register_model(session, plan, trained, score, subset, system, champion)
        run = summarize(session, plan, machine, trained, score, subset, version)
        return keep_outcome(
            RetrainSummary(
                is_retrained=True,
                news=news.model_dump(mode="json"),
                reason=run.promotion,
                start=session.facts["start"].model_dump(mode="json"),
                comparison=None if session.facts["comparison"] is None else session.facts["comparison"].model_dump(),
                run=run,
            )
        )


def leave_alone(params: Params, news: DatasetNews) -> RetrainSummary:
    """Return that nothing was trained, and show why."""
    page = FlowPage(flow_run.id)
    page.rename(name_retraining(params))
    reason = f"{news.reason}: nothing to do; force a retraining to train all the same"
    LOGGER.info(reason)
    page.markdown("champion-decision", Page("Nothing to do", [reason]).to_markdown(), "Why nothing was trained")
    page.close()
    return keep_outcome(RetrainSummary(is_retrained=False, news=news.model_dump(mode="json"), reason=reason))


def keep_outcome(summary: RetrainSummary) -> RetrainSummary:
    """Return what the flow reached, kept with the command, too: no orchestrator can lose it there."""
    if (launch := LAUNCH.get()) is not None:
        launch.retraining = summary
    return summary


@task(name="Find the data set to retrain on", **STORY)
def find_text(
    preset: str, overrides: dict[str, Any] | None, dataset: str | None, hours: float | None, name: str | None
) -> Params:
    """Return the params of the retraining: the data set that was given, else the champion's own."""
    relearning = choose_text(preset, overrides, dataset=dataset, hours=hours, name=name)
    relearning.check()
    return relearning.params


@task(name="Look for a changed data set", **STORY)
def look_for_changes(params: Params) -> tuple[DatasetNews, ModelVersion | None]:
    """Return whether the data set differs from what the newest version learnt, and the champion."""
    return read_news(params)


@task(name="Choose where to start", **STORY)
def choose_where_to_start(
    session: Session,
    start: str,
    champion: Champion,
    subset: TextSubset,
    machine: MachineRate,
    system: SystemReport,
) -> Start:
    """Return the start that is forecast to score better; the session's params then fix the champion's shape."""
    with session.stage("probe", "Choosing where to start"):
        kept = session.run.decided("start")
        if kept is None:
            chosen = forecast_start(session, start, champion, subset, machine, system)
            version = None if champion.version is None else champion.version.model_dump(mode="json")
            model = None if champion.model is None else champion.model.model_dump()
            kept = {"start": chosen.model_dump(), "version": version, "model": model}
            session.run.decide("start", kept)
        chosen = Start.model_validate(kept["start"])
        if chosen.version is not None:
            version, model = ModelVersion.model_validate(kept["version"]), ModelConfig.model_validate(kept["model"])
            folder = download(version)
            session.params = fix_shape(session.params, model, str(folder))
            session.facts |= {"start_folder": folder, "started_from": version, "start_model": model}
        session.facts["start"] = chosen
    session.say(f"Starting from {chosen.name}: {chosen.reason}")
    session.recorder.set_tags({"lightlm.started_from": chosen.name, "lightlm.start_reason": chosen.reason})
    figures = {
        "versus_champion/forecast_from_scratch": chosen.scratch_bits_per_byte,
        "versus_champion/forecast_continued": chosen.continued_bits_per_byte,
    }
    session.recorder.log_metrics({name: value for name, value in figures.items() if value is not None}, 0)
    return chosen


def forecast_start(
    session: Session,
    start: str,
    champion: Champion,
    subset: TextSubset,
    machine: MachineRate,
    system: SystemReport,
) -> Start:
    """Return the start that `start` demands or that the forecasts prefer."""

    def from_scratch(reason: str) -> Start:
        return Start(version=None, scratch_bits_per_byte=None, continued_bits_per_byte=None, reason=reason)

    if start == "scratch":
        return from_scratch("it was asked for")
    if champion.version is None or champion.scores is None or champion.model is None:
        return from_scratch(champion.reason or "there is no champion yet")
    if start == "forecast" and session.params.budget.planner != "measured":
        return from_scratch(f"planner {session.params.budget.planner} fixes the shape")
    past = ChampionPast(
        version=champion.version.version,
        model=champion.model,
        seen_bytes=read_seen_bytes(champion),
        bits_per_byte=champion.bits_per_byte,
    )
    if past.seen_bytes <= 0:
        return from_scratch(f"version {past.version} does not say how much it has read")
    hardness = measure_hardness(subset)
    plan = plan_from_scratch(session, subset, machine, system, hardness)
    speed = Probe(machine=machine, shapes=[]).speed_of(past.model, is_compiled=False)
    new_bytes = speed * plan.training_seconds * bytes_a_token_at(past.model.vocab_size, hardness)
    correction = History(session.home).correct(system.hardware_id, subset.validation_sha256).loss
    continued = forecast_continuation(past, new_bytes, subset.num_bytes, hardness, correction)
    chosen = choose_start(past, continued, plan.predicted_bits_per_byte)
    if start == "champion":
        return chosen.model_copy(update={"version": past.version, "reason": f"it was asked for; {chosen.reason}"})
    return chosen


def read_seen_bytes(champion: Champion) -> float:
    """Return the bytes that the champion and those it was continued from have read; 0 where its tags do not tell."""
    assert champion.version is not None
    try:
        return float(champion.version.tags.get("seen_bytes", "0"))
    except ValueError:
        return 0.0


def plan_from_scratch(
    session: Session, subset: TextSubset, machine: MachineRate, system: SystemReport, hardness: float
) -> Plan:
    """Return the plan that a run from scratch would probably get: by the priors, before anything is timed."""
    fixed, seconds = session.params.tokenizer.vocab_size, session.ledger.remaining_seconds
    size = fixed or choose_vocab_sizes(machine, seconds, subset.num_bytes, hardness)[0]
    length = bytes_a_token_at(size, hardness)
    text = TextFacts(
        vocab_size=size,
        num_train_tokens=int(subset.num_bytes / length),
        num_train_bytes=subset.num_bytes,
        num_validation_tokens=int(subset.num_validation_bytes / length),
        num_validation_bytes=subset.num_validation_bytes,
        text_sha256=subset.validation_sha256,
        hardness=hardness,
    )
    planner = Planner(
        session.params,
        text,
        machine,
        lambda: session.ledger.remaining_seconds,
        ClosingTimes(session.home).estimate(session.ledger.budget_seconds),
        CompiledShapes(session.home),
        History(session.home).correct(system.hardware_id, subset.validation_sha256),
    )
    return planner.plan(None)[0]


def confirm_start(session: Session, plan: Plan) -> Plan:
    """Return the plan with the forecast of the start; weights go only into a model of their own shape."""
    chosen: Start = session.facts["start"]
    if chosen.version is None or chosen.continued_bits_per_byte is None:
        return plan
    if plan.model == session.facts["start_model"]:
        factor = chosen.continued_bits_per_byte / plan.predicted_bits_per_byte
        names = ("predicted_bits_per_byte", "predicted_low", "predicted_high")
        plan = plan.model_copy(update={name: factor * getattr(plan, name) for name in names})
        session.say(
            f"Expected from the weights of version {chosen.version}: {plan.predicted_bits_per_byte:.3f} "
            f"({plan.predicted_low:.3f} to {plan.predicted_high:.3f}) bits per byte"
        )
        return plan
    del session.facts["start_folder"], session.facts["started_from"]
    reason = f"the plan cannot have the shape of version {chosen.version}: {plan.summary()} instead"
    session.say(f"Starting from scratch: {reason}")
    session.recorder.set_tags({"lightlm.started_from": "scratch", "lightlm.start_reason": reason})
    session.facts["start"] = chosen.model_copy(update={"version": None, "reason": reason})
    return plan
