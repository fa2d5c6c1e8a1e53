"""The stages of a run, one function each; every stage is shown, recorded and timed."""

from lightlm.budget.allowance import LEAST_SECONDS, REGISTRATION
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.history import History
from lightlm.budget.mixing import SCORING_COST
from lightlm.budget.plan import Plan
from lightlm.budget.probe import MachineRate, time_reference
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import Closing, ClosingTimes, EndConditions
from lightlm.budget.space import check_training_space
from lightlm.budget.tiers import tier_of
from lightlm.budget.timings import probe_shapes
from lightlm.budget.transfer import least_seconds, plan_from_base
from lightlm.data.origin import list_names
from lightlm.data.shards import TokenShards
from lightlm.data.shards import tokenize_subset as tokenize
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.data.tokenization.tokenizer import prepare_tokenizer as prepare
from lightlm.errors import Interrupted, SystemCheckError
from lightlm.evaluation.score import Evaluated
from lightlm.ngram.stage import CountedText, find_tables
from lightlm.params import Params
from lightlm.runs.champion import keep_own_scores
from lightlm.runs.counting import count_text, plan_with_counts
from lightlm.runs.history import leave_to_later_runs, notice_neighbors
from lightlm.runs.naming import learn_origin
from lightlm.runs.pages import show_checks, show_plan
from lightlm.runs.preparation import (
    DATA_FRACTION,
    choose_sizes,
    count_scored_tokens,
    describe_text,
    estimate_text,
    inspect_machine,
    measure_difficulty,
    measure_rate,
    needs_reference,
)
from lightlm.runs.recording import (
    describe_unregistered,
    flatten_plan,
    generation_defaults,
    list_scores,
    make_request,
    record_data,
    record_ledger,
)
from lightlm.runs.resume import (
    find_machine,
    find_plan,
    find_probe,
    find_request,
    find_score,
    find_system,
    forget_another_text,
    train_while_tokenizing,
)
from lightlm.runs.session import Session
from lightlm.runs.stage_names import STAGES
from lightlm.runs.texts import list_other_shards, read_texts, score_others
from lightlm.runs.values import BaseStart, Material, Outcome, Registered, StartingPoint, Trained
from lightlm.store.commit import open_commit
from lightlm.store.disk import time_sync
from lightlm.system import SystemReport
from lightlm.tracking.record import PLAN
from lightlm.tracking.registry import PROMOTION_TAG
from lightlm.training.messages import TrainRequest

GATE_FRACTION = 0.003
"""Fraction of the budget that the network may take to read the text held back for the gate."""

PATIENCE_SECONDS = 1.5
PATIENCE_FRACTION = 0.005
"""Seconds, and fraction of the budget, that the final score may run over to read all the text."""

REGISTERING_SECONDS = 1.0
"""Seconds from the score to the end of the flow, without the model's own bytes."""

SENT_BYTES_PER_SECOND = 90e6
"""Bytes of a model copied into MLflow's artifacts in a second: 540 MB took 3.5 to 5.2 s."""


def check_system(session: Session) -> SystemReport:
    """Return the report of this machine; refuse to start where a check fails."""
    if (known := find_system(session)) is not None:
        return known

    with session.stage("check"):
        report = inspect_machine(session.params, session.home, session.worker)
        session.render_checks(report.checks)
        show_checks(session, report)
        session.recorder.log_text(report.model_dump_json(indent=2), "system.json")
        session.run.decide("system", report.model_dump(mode="json"))

    notice_neighbors(session, report)
    if report.failed:
        raise SystemCheckError("; ".join(f"{c.name}: {c.message}; {c.fix}" for c in report.failed))

    return report


def measure_matrix_rate(session: Session, system: SystemReport) -> MachineRate:
    """Return the device, the precision and the rate of matrix products that this run has."""
    with session.stage("probe", "Measuring this machine"):
        machine = find_machine(session, system)
        if machine is None:
            machine = measure_rate(session.params, system, session.worker, session.neighbors)
            session.run.decide("machine", machine.model_dump(mode="json"))

    session.log(
        f"{machine.device}, {machine.dtype}: {machine.flops_per_second / 1e9:,.0f} GFLOP/s measured"
    )
    return machine


def materialize_subset(session: Session, machine: MachineRate) -> Material:
    """Return the documents that this budget can use, in the store, with their difficulty."""
    with session.stage("data"):
        dataset = session.params.dataset
        fraction = None
        needed = session.run.decide_once(
            "needed_bytes",
            lambda: list(estimate_text(session.params, machine, session.ledger.remaining_seconds)),
        )
        if session.params.budget.planner == "tiers":
            tier = tier_of(session.params.budget.hours)
            needed = []
            fraction = tier.fraction
            if tier.documents and dataset.max_documents is None:
                dataset = dataset.model_copy(update={"max_documents": tier.documents})
        seconds = session.run.decide_once(
            "data_seconds", lambda: DATA_FRACTION * session.ledger.remaining_seconds
        )
        subset = read_texts(session, dataset, needed, seconds, fraction)
        forget_another_text(session, subset)
        origin = learn_origin(session, subset)
        material = Material(subset, measure_difficulty(subset), origin)

    for one in (subset, *(other.subset for other in subset.others)):
        named = f"{one.name}: " if subset.others else ""
        session.log(named + one.summary() + (" (from the store)" if one.reused else ""))
    record_data(session, material)
    return material


def measure_training_rate(session: Session, machine: MachineRate) -> MachineRate:
    """Return the machine with the rate of training steps, for the choice of a vocabulary."""
    if not needs_reference(session.params, machine):
        return machine

    seconds = session.ledger.budget_seconds
    with session.stage("probe", "Timing a reference shape"):
        rate = session.run.decide_once(
            "reference_flops_per_second", lambda: time_reference(machine, session.worker, seconds)
        )
    return machine.model_copy(update={"reference_flops_per_second": rate})


def prepare_tokenizer(
    session: Session, params: Params, material: Material, machine: MachineRate
) -> Tokenizer:
    """Return a tokenizer of the size that suits the budget, or the one that `params` name."""
    subset = material.subset
    with session.stage("tokenizer"):
        seconds = session.ledger.remaining_seconds
        sizes = session.run.decide_once(
            "vocab_sizes",
            lambda: choose_sizes(params, machine, seconds, subset.num_bytes, material.difficulty),
        )
        tokenizer = prepare(session.home, params.tokenizer, subset, sizes, report=session.log)

    reused = ", from the store" if tokenizer.reused else ""
    session.log(f"Tokenizer: {tokenizer.vocab_size:,} entries{reused}")
    return tokenizer


def tokenize_subset(session: Session, material: Material, tokenizer: Tokenizer) -> TokenShards:
    """Return the token shards of the text under this tokenizer."""
    with session.stage("shards"):
        shards = tokenize(session.home, material.subset, tokenizer, report=session.log)
    for one in (shards, *(other.shards for other in shards.others)):
        reused = "Reusing" if one.reused else "Wrote"
        session.log(f"{reused} shards {one.fingerprint}: {one.num_train_tokens:,} training tokens")
    return shards


def count_tokens(
    session: Session, params: Params, base: BaseStart | None, shards: TokenShards
) -> CountedText | None:
    """Return the text's count tables; None where no new plan from scratch is made."""
    if base is not None or find_plan(session, shards) is not None:
        return None
    with session.stage("counts"):
        seconds = session.ledger.remaining_seconds
        return count_text(session.home, params, shards, seconds, session.log)


def plan_budget(
    session: Session,
    start: StartingPoint,
    system: SystemReport,
    machine: MachineRate,
    material: Material,
    shards: TokenShards,
    counted: CountedText | None,
) -> Plan:
    """Return the plan, made from timed shapes. A run that continues its training keeps its plan."""
    kept = find_plan(session, shards)
    if kept is not None:
        session.log(f"Keeping the plan: {kept.summary()}")
        return kept

    if start.base is not None:
        return plan_base(session, start, start.base, machine, material, shards)

    with session.stage("probe", "Timing shapes and planning"):
        text = describe_text(shards, material.difficulty, list_names(material.origin)[0])
        closing = reserve_closing(session)
        digest = material.subset.validation_sha256

        def time_left() -> TimeLeft:
            return TimeLeft(session.ledger.remaining_seconds, closing)

        probe = find_probe(session, shards) or probe_shapes(
            start.params,
            machine,
            text,
            session.worker,
            time_left,
            compiled=CompiledShapes(session.home),
            correction=History(session.home).correct(system.hardware_id, digest),
            probed_seconds=session.ledger.entries.get("probe", 0.0),
        )
        num_scored = count_scored_tokens(start.params, shards)
        plan = plan_with_counts(start.params, text, probe, time_left(), counted, num_scored)
        session.run.decide(
            "timings", {"shards": shards.identity, "probe": probe.model_dump(mode="json")}
        )

    session.ledger.split("probe", {"compile": probe.compile_seconds})
    session.recorder.log_text(probe.model_dump_json(indent=2), "probe.json")
    return record_plan(session, start, plan, shards)


def reserve_closing(session: Session) -> Closing:
    """Return the time to keep for the end of the run, under the conditions of this machine now."""
    conditions = EndConditions(session.neighbors.slowdown, time_sync(session.folder))
    session.allowance.conditions = conditions
    return conditions.reserve(ClosingTimes(session.home).estimate(session.ledger.budget_seconds))


def plan_base(
    session: Session,
    start: StartingPoint,
    base: BaseStart,
    machine: MachineRate,
    material: Material,
    shards: TokenShards,
) -> Plan:
    """Return the plan of training that starts from a base; its probe is done already."""
    with session.stage("probe", "Planning"):
        left = TimeLeft(session.ledger.remaining_seconds, reserve_closing(session))
        plan = plan_from_base(
            start.params,
            describe_text(shards, material.difficulty, list_names(material.origin)[0]),
            machine,
            base.base.model,
            base.probe,
            left,
            base.name,
        )

    session.recorder.log_text(base.probe.model_dump_json(indent=2), "probe.json")
    return record_plan(session, start, plan, shards)


def record_plan(session: Session, start: StartingPoint, plan: Plan, shards: TokenShards) -> Plan:
    """Show the plan, put it into the run's record, and return it."""
    session.render_plan(plan)
    show_plan(session, plan)
    session.recorder.log_text(plan.model_dump_json(indent=2), PLAN)
    if session.run.decided("plan") is None:  # MLflow takes a param once
        session.recorder.log_params(start.params.flatten() | flatten_plan(plan))

    session.run.decide("plan", {"shards": shards.identity, "plan": plan.model_dump(mode="json")})
    return plan


def train_model(
    session: Session, start: StartingPoint, plan: Plan, tokenizer: Tokenizer, shards: TokenShards
) -> Trained:
    """Return what training reached before the time kept for score and registration begins.

    A continued run trains on from its newest checkpoint; with too little time left, that is the
    result.

    Raises:
        Interrupted: the user stopped it; what was reached is kept.
    """
    ledger = session.ledger
    with session.stage("training", f"{STAGES['training']} {plan.summary()}"):
        check_training_space(session.home, plan)
        scoring_cost = SCORING_COST if plan.is_mixed else 1.0
        request = TrainRequest(
            run_folder=session.folder,
            shards_folder=shards.folder,
            cache_bytes=session.params.store.block_cache_bytes,
            others=list_other_shards(plan, shards),
            tokenizer_folder=tokenizer.folder,
            model=plan.model,
            trainer=plan.trainer,
            deadline=min(
                ledger.deadline - plan.reserve_seconds,
                ledger.clock() + 1.02 * plan.training_seconds,
            ),
            validation_tokens=plan.validation_tokens,
            sample_tokens=plan.sample_tokens,
            scoring_tokens=int(scoring_cost * count_scored_tokens(session.params, shards)),
            scoring_seconds=plan.scoring_reserve_seconds,
            keep_best=plan.keep_best,
            generation=generation_defaults(session.params),
            start_folder=start.folder,
            keep_start=start.base is not None,
            least_seconds=0.0 if start.base is None else least_seconds(plan, start.base.probe),
            counts_folder=find_tables(session.home, plan.counts.fingerprint)
            if plan.counts is not None and plan.is_mixed
            else None,
            gate_seconds=max(1.0, GATE_FRACTION * ledger.budget_seconds),
        )
        trained = train_while_tokenizing(session, plan, request, tokenizer, shards)

    ledger.split("training", trained.seconds)
    if trained.result.is_stopped:
        raise Interrupted(
            f"stopped at step {trained.result.step:,}; run the same command again to go on "
            f"(checkpoint in {session.folder})"
        )
    return trained


def evaluate_model(
    session: Session, plan: Plan, trained: Trained, shards: TokenShards
) -> Evaluated:
    """Return the score of the model's folder on the held-out text, or on the part time allows."""
    result = trained.result
    model = open_commit(result.folder, "model").digest
    if (known := find_score(session, model)) is not None:
        return known

    with session.stage("final evaluation"):
        registering = REGISTERING_SECONDS + 4 * plan.num_parameters / SENT_BYTES_PER_SECOND
        seconds = session.ledger.remaining_seconds - registering
        # Rather a moment late than a score of almost the whole text, which compares with nothing.
        if plan.is_scored_whole:
            seconds += PATIENCE_SECONDS + PATIENCE_FRACTION * session.ledger.budget_seconds
        answer = session.worker.call(
            "evaluate",
            folder=str(result.folder),
            shards_folder=str(shards.folder),
            trainer=plan.trainer.model_dump(),
            max_bytes=session.params.evaluation.max_bytes,
            deadline=session.ledger.clock() + max(seconds, plan.evaluation_seconds, 0.5),
        )

        others = tuple(score_others(session, plan, trained, shards, registering))
        evaluated = Evaluated.model_validate(answer).model_copy(update={"others": others})

    session.run.decide("score", evaluated.model_dump() | {"model": model})
    session.recorder.log_metrics(list_scores(evaluated, plan), result.step)
    return evaluated


def register_model(session: Session, outcome: Outcome) -> Registered:
    """Return the version that MLflow's registry gave the model; champion, if it is better."""
    decision = None
    with session.stage("registration"):
        request = find_request(session, outcome.evaluated.score)
        if request is None:
            request, decision = make_request(session, outcome)
            record_ledger(session, outcome.plan, outcome.trained)
            # A continued model says nothing about the law for models from scratch, and a mixture
            # little about its first text.
            if outcome.start.folder is None and not outcome.plan.texts:
                leave_to_later_runs(session, outcome)
            session.run.decide("registration", request.cleaned().model_dump(mode="json"))
        session.recorder.describe(request.description)
        session.recorder.register(request)
        session.recorder.finish("FINISHED")
        keep_own_scores(session, outcome)
        outbox = session.outbox
        least = LEAST_SECONDS + outbox.seconds_to_open if outbox.is_answering else 0.0
        seconds = session.allowance.seconds(REGISTRATION, least=least)
        version = outbox.wait_for_version(seconds)

    if version is None:
        version = describe_unregistered(session, outcome, seconds)
        session.log(version.tags[PROMOTION_TAG])
    return Registered(version, request.comparison, decision)
