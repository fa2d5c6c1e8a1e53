"""The start from a model that exists: found, scored before it is touched, and compared with the
forecast from scratch where that is asked for.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lightlm.bases.catalog import OFFLINE_VARIABLE, list_candidates
from lightlm.bases.pretrained import Base, Origin, open_base, read_origin
from lightlm.bases.source import Found, find_base, kind_of
from lightlm.budget.candidate import TextFacts
from lightlm.budget.continuation import Start
from lightlm.budget.ledger import SECONDS_PER_HOUR
from lightlm.budget.probe import MachineRate
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import ClosingTimes
from lightlm.budget.timings import PROBE_FRACTION
from lightlm.budget.transfer import check_time, plan_from_base
from lightlm.budget.tuning import choose_base_trainer, list_tuned, shape_base
from lightlm.data.subset import TextSubset
from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.errors import LightLMError, ModelVersionError, ParameterError
from lightlm.json_object import JsonObject
from lightlm.model.families import read_config
from lightlm.params import Params
from lightlm.runs.preparation import estimate_facts
from lightlm.runs.session import Session
from lightlm.runs.start import (
    choose_where_to_start,
    log_start,
    plan_from_scratch,
    start_from_scratch,
)
from lightlm.runs.values import (
    BaseStart,
    Champion,
    Material,
    StartingPoint,
    begin_training,
    name_model,
)
from lightlm.system import SystemReport
from lightlm.tracking.catalog import resolve
from lightlm.tracking.registry import ModelVersion, download
from lightlm.tracking.tags import MANIFEST_TAG
from lightlm.training.messages import BaseProbe
from lightlm.training.supervisor import Worker

LEAST_PROBE_SECONDS = 3.0
"""Seconds that the probe of a base gets at least: two windows scored, one way to train timed."""


class Named(NamedTuple):
    """The base that a source names, its version, and the seconds that no budget is charged with."""

    base: Base
    version: ModelVersion | None = None
    seconds: float = 0.0


def choose_base(
    session: Session, material: Material, machine: MachineRate, system: SystemReport
) -> BaseStart | None:
    """Return the base that training starts from, with its probe; None for new weights.

    Raises:
        ModelVersionError: the source is not there, or is of another family.
    """
    params = session.params
    if kind_of(params.start.source) == "scratch":
        return None

    with session.stage("probe", "Looking for what training can start from"):
        kept = session.run.decided("base")
        if kept is None:
            chosen = find_start(session, params, material, machine, system)
            kept = dump_start(chosen) if isinstance(chosen, BaseStart) else {"from_scratch": chosen}
            session.run.decide("base", kept)
        if "from_scratch" in kept:
            log_start(session, "scratch", kept["from_scratch"])
            return None
        start = load_start(kept)

    log_start(session, start.name, start.reason)
    for line in describe_origin(start.base.origin):
        session.log(line)
    session.recorder.set_tags(
        {f"lightlm.{name}": value for name, value in start.base.origin.tags().items()}
    )
    session.recorder.log_metrics(
        {
            "base/untouched_bits_per_byte": start.probe.bits_per_byte,
            "base/scored_bytes": start.probe.num_bytes,
        }
        | ({} if start.scratch is None else {"base/forecast_from_scratch": start.scratch})
        | ({} if start.forecast is None else {"base/forecast_from_base": start.forecast}),
        0,
    )
    return start


def choose_retraining_start(
    session: Session,
    start: str,
    champion: Champion,
    material: Material,
    machine: MachineRate,
    system: SystemReport,
) -> StartingPoint:
    """Return where a retraining starts: a champion that began from a base goes on as one, and every
    other as forecast by the law for models from scratch.
    """
    model = champion.model
    began_from_base = model is not None and (model.longest_context or model.family != "qwen3")
    if start == "scratch" or champion.version is None or not began_from_base:
        return choose_where_to_start(session, start, champion, material, machine, system)

    params = name_model(session.params, champion.model_name)
    with session.stage("probe", "Choosing where to start"):
        kept = session.run.decided("base")
        if kept is None:
            base = open_version(session.home, champion.version)
            named = Named(base, champion.version)
            try:
                found = compare_with_scratch(session, params, named, material, machine, system)
                check_base_time(session, params, found, material)
                kept = dump_start(found)
            except ParameterError as error:
                if start == "champion":
                    raise
                kept = {"from_scratch": str(error)}
            session.run.decide("base", kept)

    if "from_scratch" in kept:
        choice = start_from_scratch(kept["from_scratch"])
        log_start(session, choice.name, choice.reason)
        return StartingPoint(params, choice)
    found = load_start(kept)

    is_better = found.forecast is None or found.scratch is None or found.forecast < found.scratch
    is_continued = start == "champion" or is_better
    choice = Start(
        version=champion.version.version if is_continued else None,
        scratch_bits_per_byte=found.scratch,
        continued_bits_per_byte=found.forecast,
        reason=found.reason,
    )
    log_start(session, choice.name, choice.reason)
    if not is_continued:
        return StartingPoint(params, choice)
    return replace(begin_training(take_tokenizer(params, found), champion, found), choice=choice)


def compare_with_scratch(
    session: Session,
    params: Params,
    named: Named,
    material: Material,
    machine: MachineRate,
    system: SystemReport,
) -> BaseStart:
    """Return a base with its probe, its forecast and the forecast from scratch.

    Raises:
        ParameterError: memory does not hold its training.
    """
    session.ledger.exclude(named.seconds)
    scratch = plan_from_scratch(session, params, material, machine, system)
    probe = probe_base(params, named.base, material.subset, machine, session.worker)
    text = describe_subset(material.subset, probe, material.difficulty)
    left = estimate_time_left(session)
    plan = plan_from_base(params, text, machine, named.base.model, probe, left)
    forecast = plan.predicted_bits_per_byte
    reason = (
        f"{forecast:.3f} bits per byte forecast, {scratch.predicted_bits_per_byte:.3f} from "
        f"scratch; untouched it has {probe.describe()}"
    )
    return BaseStart(
        named.base, probe, reason, named.version, forecast, scratch.predicted_bits_per_byte
    )


def find_start(
    session: Session,
    params: Params,
    material: Material,
    machine: MachineRate,
    system: SystemReport,
) -> BaseStart | str:
    """Return the base to start from, or why training begins from scratch."""
    source = params.start.source
    if kind_of(source) != "auto":
        named = find_named(session.home, params, source, session.log)
        session.ledger.exclude(named.seconds)
        probe = probe_base(params, named.base, material.subset, machine, session.worker)
        reason = f"it was asked for; untouched {probe.describe()}"
        start = BaseStart(named.base, probe, reason, named.version)
        check_base_time(session, params, start, material)
        return start

    best: BaseStart | None = None
    problems = []
    for candidate in list_candidates(session.home):
        try:
            named = find_named(session.home, params, candidate, session.log)
            found = compare_with_scratch(session, params, named, material, machine, system)
            check_base_time(session, params, found, material)
        except LightLMError as error:
            problems.append(str(error))
            session.log(f"{candidate}: {error}")
            continue
        if best is None or (found.forecast or 0.0) < (best.forecast or 0.0):
            best = found

    if best is None or best.forecast is None or best.scratch is None:
        if not problems:
            return f"no base is on this machine, and {OFFLINE_VARIABLE} keeps the Hub unasked"
        return f"no base can be used: {'; '.join(problems)}"
    if best.forecast < best.scratch:
        return best
    return f"{best.scratch:.3f} bits per byte forecast, {best.forecast:.3f} from {best.name}"


def check_base_time(session: Session, params: Params, start: BaseStart, material: Material) -> None:
    """Refuse a budget that the base as it is cannot keep.

    Raises:
        ParameterError: naming the smallest hours that work with it.
    """
    text = describe_subset(material.subset, start.probe, material.difficulty)
    left = estimate_time_left(session)
    check_time(params, text, start.base.model, start.probe, left, start.name)


def estimate_time_left(session: Session) -> TimeLeft:
    """Return the time left for a run, with what to keep for its end as earlier runs had it."""
    closing = ClosingTimes(session.home).estimate(session.ledger.budget_seconds)
    return TimeLeft(session.ledger.remaining_seconds, closing)


def find_named(home: Path, params: Params, source: str, report: Callable[[str], None]) -> Named:
    """Return the base of a source; its download and its way into the store are not charged.

    Raises:
        ModelVersionError: it is not there, or is of another family.
    """
    if kind_of(source) == "version":
        version = resolve(home, source)
        return Named(open_version(home, version), version)
    found: Found = find_base(home, source, revision=params.start.revision, report=report)
    return Named(found.base, None, found.seconds)


def open_version(home: Path, version: ModelVersion) -> Base:
    """Return a registered version as a base; of one that was trained from a base, with its origin.

    Raises:
        ModelVersionError: a file differs from the registry's digest.
    """
    folder = download(home, version)
    origin = read_origin(folder)
    if origin is not None:
        return open_base(folder)
    tokenizer = load_tokenizer(folder)
    end = tokenizer.engine.id_to_token(tokenizer.end_of_text_id)
    own = Origin(
        kind="version",
        id=version.uri,
        digest=version.tags.get(MANIFEST_TAG, ""),
        end_of_text=end or "",
    )
    return Base(folder=folder, origin=own, model=read_config(folder))


def probe_base(
    params: Params, base: Base, subset: TextSubset, machine: MachineRate, worker: Worker
) -> BaseProbe:
    """Return what the worker measures of a base on a subset's held-out text."""
    model = shape_base(params, base.model)
    trainers = [
        choose_base_trainer(params, machine, model, tuned, layers, 8 * model.context_length)
        for tuned, layers in list_tuned(params, model)
    ]
    one = [trainer.model_copy(update={"micro_batch_size": 1}) for trainer in trainers]
    fraction = PROBE_FRACTION * params.budget.hours * SECONDS_PER_HOUR
    answer = worker.call(
        "probe_base",
        folder=str(base.folder),
        subset_folder=str(subset.folder),
        model=model.model_dump(),
        trainers=[trainer.model_dump() for trainer in one],
        max_seconds=max(LEAST_PROBE_SECONDS, fraction),
    )
    return BaseProbe.model_validate(answer)


def describe_subset(subset: TextSubset, probe: BaseProbe, difficulty: float) -> TextFacts:
    """Return the facts of a text as a base's tokenizer cuts it, by the sample of the probe."""
    return estimate_facts(subset, 0, probe.bytes_per_token, difficulty)


def take_tokenizer(params: Params, start: BaseStart | None) -> Params:
    """Return params with the tokenizer of the base, which stays as it is."""
    if start is None:
        return params
    return params.model_copy(
        update={
            "tokenizer": params.tokenizer.model_copy(
                update={"source": str(start.base.folder), "vocab_size": None}
            )
        }
    )


def describe_origin(origin: Origin) -> list[str]:
    """Return lines about where a base is from, for a person."""
    parts = [f"license {origin.license}" if origin.license else "license unknown"]
    if origin.revision:
        parts.append(f"revision {origin.revision[:12]}")
    if origin.languages:
        parts.append(f"languages {', '.join(origin.languages)}")
    return [f"{origin.id}: {', '.join(parts)}", *origin.notes]


def dump_start(start: BaseStart) -> JsonObject:
    """Return a start as a run's journal keeps it."""
    return {
        "base": start.base.model_dump(mode="json"),
        "probe": start.probe.model_dump(),
        "reason": start.reason,
        "version": None if start.version is None else start.version.model_dump(mode="json"),
        "forecast": start.forecast,
        "scratch": start.scratch,
    }


def load_start(values: JsonObject) -> BaseStart:
    """Return the start that a run's journal keeps.

    Raises:
        ModelVersionError: its folder is gone.
    """
    base = Base.model_validate(values["base"])
    if not Path(base.folder).is_dir():
        raise ModelVersionError(
            f"{base.folder}, which this run starts from, is gone; give --fresh to begin anew"
        )
    version = values["version"]
    return BaseStart(
        base,
        BaseProbe.model_validate(values["probe"]),
        values["reason"],
        None if version is None else ModelVersion.model_validate(version),
        values["forecast"],
        values["scratch"],
    )
