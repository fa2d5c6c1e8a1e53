"""The start of a retraining: the champion's weights or new ones, as forecast or as asked for."""

from lightlm.budget import planner
from lightlm.budget.continuation import (
    ChampionPast,
    Start,
    choose_start,
    fix_shape,
    forecast_continuation,
)
from lightlm.budget.history import History
from lightlm.budget.plan import Plan
from lightlm.budget.probe import MachineRate, Probe
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import ClosingTimes
from lightlm.budget.vocabulary import bytes_per_token_at
from lightlm.model.config import ModelConfig
from lightlm.params import Params
from lightlm.runs.preparation import choose_sizes, estimate_facts
from lightlm.runs.session import Session
from lightlm.runs.values import Champion, Material, StartingPoint, name_model
from lightlm.system import SystemReport
from lightlm.tracking.registry import ModelVersion, download


def choose_where_to_start(
    session: Session,
    start: str,
    champion: Champion,
    material: Material,
    machine: MachineRate,
    system: SystemReport,
) -> StartingPoint:
    """Return the start that is forecast to score better, with params that fix its shape."""
    with session.stage("probe", "Choosing where to start"):
        params = name_model(session.params, champion.model_name)
        kept = session.run.decided("start")
        if kept is None:
            chosen = forecast_start(session, params, start, champion, material, machine, system)
            version = None if champion.version is None else champion.version.model_dump(mode="json")
            model = None if champion.model is None else champion.model.model_dump()
            kept = {"start": chosen.model_dump(), "version": version, "model": model}
            session.run.decide("start", kept)

        chosen = Start.model_validate(kept["start"])
        point = StartingPoint(params, chosen)
        if chosen.version is not None:
            version = ModelVersion.model_validate(kept["version"])
            model = ModelConfig.model_validate(kept["model"])
            folder = download(session.home, version)
            fixed = fix_shape(params, model, str(folder))
            point = StartingPoint(fixed, chosen, version, folder, model)

    log_start(session, chosen.name, chosen.reason)
    figures = {
        "versus_champion/forecast_from_scratch": chosen.scratch_bits_per_byte,
        "versus_champion/forecast_continued": chosen.continued_bits_per_byte,
    }

    session.recorder.log_metrics(
        {name: value for name, value in figures.items() if value is not None}, 0
    )
    return point


def log_start(session: Session, name: str, reason: str) -> None:
    """Log where training starts and why, and tag the run with both."""
    session.log(f"Starting from {name}: {reason}")
    session.recorder.set_tags({"lightlm.started_from": name, "lightlm.start_reason": reason})


def start_from_scratch(reason: str) -> Start:
    """Return the start from new weights."""
    return Start(
        version=None, scratch_bits_per_byte=None, continued_bits_per_byte=None, reason=reason
    )


def forecast_start(
    session: Session,
    params: Params,
    start: str,
    champion: Champion,
    material: Material,
    machine: MachineRate,
    system: SystemReport,
) -> Start:
    """Return the start that `start` demands or that the forecasts prefer."""
    if start == "scratch":
        return start_from_scratch("it was asked for")
    if champion.version is None or champion.scores is None or champion.model is None:
        return start_from_scratch(champion.reason or "there is no champion yet")
    if start == "forecast" and params.budget.planner != "measured":
        return start_from_scratch(f"planner {params.budget.planner} fixes the shape")

    past = ChampionPast(
        version=champion.version.version,
        model=champion.model,
        seen_bytes=read_seen_bytes(champion),
        bits_per_byte=champion.network_bits_per_byte,
    )

    if past.seen_bytes <= 0:
        return start_from_scratch(f"version {past.version} does not say how much it has read")

    subset = material.subset
    plan = plan_from_scratch(session, params, material, machine, system)
    speed = Probe(machine=machine, shapes=()).speed_of(past.model, is_compiled=False)
    new_bytes = (
        speed
        * plan.training_seconds
        * bytes_per_token_at(past.model.vocab_size, material.difficulty)
    )
    correction = History(session.home).correct(system.hardware_id, subset.validation_sha256).loss
    continued = forecast_continuation(
        past, new_bytes, subset.num_bytes, material.difficulty, correction
    )
    chosen = choose_start(past, continued, plan.predicted_bits_per_byte)

    if start == "champion":
        return chosen.model_copy(
            update={"version": past.version, "reason": f"it was asked for; {chosen.reason}"}
        )

    return chosen


def read_seen_bytes(champion: Champion) -> float:
    """Return the bytes that the champion and its predecessors have read; 0 if unknown."""
    assert champion.version is not None
    try:
        return float(champion.version.tags.get("seen_bytes", "0"))
    except ValueError:
        return 0.0


def plan_from_scratch(
    session: Session,
    params: Params,
    material: Material,
    machine: MachineRate,
    system: SystemReport,
) -> Plan:
    """Return the plan that a run from scratch would probably get, before anything is timed."""
    subset = material.subset
    difficulty = material.difficulty
    seconds = session.ledger.remaining_seconds
    size = choose_sizes(params, machine, seconds, subset.num_bytes, difficulty)[0]
    text = estimate_facts(subset, size, bytes_per_token_at(size, difficulty), difficulty)
    correction = History(session.home).correct(system.hardware_id, subset.validation_sha256)
    closing = ClosingTimes(session.home).estimate(session.ledger.budget_seconds)

    return planner.plan(
        params,
        text,
        Probe(machine=machine, shapes=(), correction=correction),
        TimeLeft(session.ledger.remaining_seconds, closing),
    )


def confirm_start(session: Session, start: StartingPoint, plan: Plan) -> tuple[StartingPoint, Plan]:
    """Return start and plan with the forecast of the start.

    It is from scratch if the plan has another shape: weights fit only into their own.
    """
    chosen = start.choice
    if chosen is None or chosen.version is None or chosen.continued_bits_per_byte is None:
        return start, plan

    if plan.model == start.model:
        factor = chosen.continued_bits_per_byte / plan.predicted_bits_per_byte
        names = ("predicted_bits_per_byte", "predicted_low", "predicted_high")
        plan = plan.model_copy(update={name: factor * getattr(plan, name) for name in names})
        session.log(
            f"Expected from the weights of version {chosen.version}: "
            f"{plan.predicted_bits_per_byte:.3f} "
            f"({plan.predicted_low:.3f} to {plan.predicted_high:.3f}) bits per byte"
        )
        return start, plan

    reason = f"the plan cannot have the shape of version {chosen.version}: {plan.summary()} instead"
    log_start(session, "scratch", reason)
    return start.from_scratch(reason), plan
