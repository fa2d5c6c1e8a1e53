"""The stages of a run, one function each; every stage is shown, recorded and timed."""

from lightlm.budget import planner
from lightlm.budget.allowance import LEAST_SECONDS, REGISTRATION
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.history import History
from lightlm.budget.plan import Plan
from lightlm.budget.probe import MachineRate, time_reference
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.scaling import estimate_needed_bytes
from lightlm.budget.space import check_training_space
from lightlm.budget.tiers import tier_of
from lightlm.budget.timings import probe_shapes
from lightlm.data.shards import TokenShards
from lightlm.data.shards import tokenize_subset as tokenize
from lightlm.data.subset import materialize_subset as materialize
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.data.tokenization.tokenizer import prepare_tokenizer as prepare
from lightlm.errors import Interrupted, SystemCheckError
from lightlm.evaluation.score import Evaluated
from lightlm.params import Params
from lightlm.runs.history import estimate_closing, leave_to_later_runs, notice_neighbors
from lightlm.runs.naming import learn_origin
from lightlm.runs.pages import show_checks, show_plan
from lightlm.runs.preparation import (
    DATA_FRACTION,
    choose_sizes,
    count_scored_tokens,
    describe_text,
    inspect_machine,
    measure_difficulty,
    measure_rate,
    needs_reference,
)
from lightlm.runs.recording import (
    describe_unregistered,
    flatten_plan,
    generation_defaults,
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
    follow_training,
    forget_another_text,
)
from lightlm.runs.session import Session
from lightlm.runs.stage_names import STAGES
from lightlm.runs.values import Material, Outcome, Registered, StartingPoint, Trained
from lightlm.store.commit import open_commit
from lightlm.system import SystemReport
from lightlm.tracking.record import PLAN
from lightlm.tracking.registry import PROMOTION_TAG
from lightlm.training.messages import TrainRequest


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
            lambda: list(
                estimate_needed_bytes(machine.usual_flops, session.ledger.remaining_seconds)
            ),
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
        subset = materialize(
            dataset, needed_bytes=needed, max_seconds=seconds, fraction=fraction, report=session.log
        )
        # A first download from the network is the one thing that the hours do not cover.
        session.ledger.exclude(subset.download_seconds)
        forget_another_text(session, subset)
        origin = learn_origin(session, subset)
        material = Material(subset, measure_difficulty(subset), origin)

    session.log(subset.summary() + (" (from the store)" if subset.reused else ""))
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
        tokenizer = prepare(params.tokenizer, subset, sizes, report=session.log)

    reused = ", from the store" if tokenizer.reused else ""
    session.log(f"Tokenizer: {tokenizer.vocab_size:,} entries{reused}")
    return tokenizer


def tokenize_subset(session: Session, material: Material, tokenizer: Tokenizer) -> TokenShards:
    """Return the token shards of the text under this tokenizer."""
    with session.stage("shards"):
        shards = tokenize(material.subset, tokenizer, report=session.log)
    reused = "Reusing" if shards.reused else "Wrote"
    session.log(
        f"{reused} shards {shards.fingerprint}: {shards.num_train_tokens:,} training tokens"
    )
    return shards


def plan_budget(
    session: Session,
    start: StartingPoint,
    system: SystemReport,
    machine: MachineRate,
    material: Material,
    shards: TokenShards,
) -> Plan:
    """Return the plan, made from timed shapes. A run that continues its training keeps its plan."""
    kept = find_plan(session, shards)
    if kept is not None:
        session.log(f"Keeping the plan: {kept.summary()}")
        return kept

    with session.stage("probe", "Timing shapes and planning"):
        text = describe_text(shards, material.difficulty)
        closing = estimate_closing(session)
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
        plan = planner.plan(start.params, text, probe, time_left())
        session.run.decide(
            "timings", {"shards": shards.fingerprint, "probe": probe.model_dump(mode="json")}
        )

    session.ledger.split("probe", {"compile": probe.compile_seconds})
    session.render_plan(plan)
    show_plan(session, plan)
    session.recorder.log_text(plan.model_dump_json(indent=2), PLAN)
    session.recorder.log_text(probe.model_dump_json(indent=2), "probe.json")
    if session.run.decided("plan") is None:  # MLflow takes a param once
        session.recorder.log_params(start.params.flatten() | flatten_plan(plan))

    session.run.decide("plan", {"shards": shards.fingerprint, "plan": plan.model_dump(mode="json")})
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
        request = TrainRequest(
            run_folder=session.folder,
            shards_folder=shards.folder,
            tokenizer_folder=tokenizer.folder,
            model=plan.model,
            trainer=plan.trainer,
            deadline=min(
                ledger.deadline - plan.reserve_seconds,
                ledger.clock() + 1.02 * plan.training_seconds,
            ),
            validation_tokens=plan.validation_tokens,
            sample_tokens=plan.sample_tokens,
            scoring_tokens=count_scored_tokens(session.params, shards),
            scoring_seconds=plan.scoring_reserve_seconds,
            keep_best=plan.keep_best,
            generation=generation_defaults(session.params),
            start_folder=start.folder,
        )
        trained = follow_training(session, plan, request)

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
        seconds = session.ledger.remaining_seconds - REGISTERING_SECONDS
        # Rather a moment late than a score of almost the whole text, which compares with nothing.
        seconds += PATIENCE_SECONDS + PATIENCE_FRACTION * session.ledger.budget_seconds
        answer = session.worker.call(
            "evaluate",
            folder=str(result.folder),
            shards_folder=str(shards.folder),
            trainer=plan.trainer.model_dump(),
            max_bytes=session.params.evaluation.max_bytes,
            deadline=session.ledger.clock() + max(seconds, plan.evaluation_seconds, 0.5),
        )

    evaluated = Evaluated.model_validate(answer)
    session.run.decide("score", answer | {"model": model})
    session.recorder.log_metrics(
        {"evaluation/bits_per_byte": evaluated.score.bits_per_byte}, result.step
    )

    return evaluated


def register_model(session: Session, outcome: Outcome) -> Registered:
    """Return the version that MLflow's registry gave the model; champion, if it is better."""
    decision = None
    with session.stage("registration"):
        request = find_request(session, outcome.evaluated.score)
        if request is None:
            request, decision = make_request(session, outcome)
            record_ledger(session, outcome.plan, outcome.trained)
            # A continued model says nothing about the law for models from scratch.
            if outcome.start.version is None:
                leave_to_later_runs(session, outcome)
            session.run.decide("registration", request.cleaned().model_dump(mode="json"))

        session.recorder.describe(request.description)
        session.recorder.register(request)
        session.recorder.finish("FINISHED")
        least = LEAST_SECONDS if session.outbox.is_answering else 0.0
        seconds = session.allowance.seconds(REGISTRATION, least=least)
        version = session.outbox.wait_for_version(seconds)

    if version is None:
        version = describe_unregistered(session, outcome, seconds)
        session.log(version.tags[PROMOTION_TAG])

    return Registered(version, request.comparison, decision)


PATIENCE_SECONDS = 1.5
PATIENCE_FRACTION = 0.005
"""Seconds, and fraction of the budget, that the final score may run over to read all the text."""

REGISTERING_SECONDS = 1.0
"""Seconds from the score to the end of the flow."""
