"""The planner: the shape with the best predicted bits per byte, and the reasons for it.

`plan` is a pure function of params, text, probe and time: equal arguments give equal plans.
`planner: tiers` and `manual` fix the shape.
"""

from lightlm.budget.candidate import Candidate, TextFacts, list_runners_up
from lightlm.budget.memory import plan_memory_bytes
from lightlm.budget.plan import Plan
from lightlm.budget.probe import Probe
from lightlm.budget.ranking import FLOOR_SECONDS, Ranking, TimeLeft
from lightlm.budget.scaling import is_repeated
from lightlm.budget.shares import settle_shares
from lightlm.budget.switches import explain_switches
from lightlm.budget.tiers import Tier, tier_of
from lightlm.model.accounting import count_parameters
from lightlm.params import Params
from lightlm.quantities import count

VALIDATION_FRACTION = 0.004
"""Fraction of the training time that one validation may take. Eight of them are 3 % of a run."""

SAMPLE_FROM_SECONDS = 10.0
"""Seconds of training below which a run writes no samples on the way."""

SAMPLE_TOKENS = 48
"""Tokens of the sample at each validation: about 0.1 s on a CPU."""


def plan(params: Params, text: TextFacts, probe: Probe, time: TimeLeft) -> Plan:
    """Return the plan for the time that is left.

    Raises:
        ParameterError: no shape satisfies what params fix, or none fits into memory.
    """
    return settle_shares(text, lambda shared: _plan_shared(params, shared, probe, time))


def _plan_shared(params: Params, text: TextFacts, probe: Probe, time: TimeLeft) -> Plan:
    """Return the plan for a text whose shares of training are settled, where there are several."""
    ranking = Ranking(params, text, probe, time)
    planner = params.budget.planner
    # Timing a shape was worth its time only if training gets at least half of the floor.
    floor = FLOOR_SECONDS / 2 if probe.shapes else FLOOR_SECONDS

    if planner == "measured" and ranking.is_shorter_than(floor):
        left = max(0.0, ranking.training_seconds())
        reason = (
            f"{left:.1f} s are left for training, less than {FLOOR_SECONDS:.0f} s: "
            "the ultra-fast tier is trained, which shows that everything works, but is not useful"
        )
        tier = tier_of(0.0)
        return _settle(ranking, ranking.judge_fixed(tier), [], [*probe.notes, reason], tier)

    if planner == "tiers":
        tier = tier_of(params.budget.hours)
        reason = f"planner tiers: the {tier.name} tier of {params.budget.hours:g} h"
        return _settle(ranking, ranking.judge_fixed(tier), [], [reason], tier)

    if planner == "manual":
        reason = "planner manual: the shape is the one given"
        return _settle(ranking, ranking.judge_fixed(None), [], [reason])

    best, *others = ranking.rank()
    reasons = [*probe.notes]
    if probe.shapes:
        reasons.append(f"timed here: {probe.summary()}")

    reasons += probe.correction.reasons()
    reasons.append(
        f"of {count(1 + len(others), 'shape')}, {count(best.model.num_layers, 'layer')} x "
        f"{best.model.model_dim} dims balances what the model can hold against the {best.tokens:,} "
        f"tokens it can read in {best.training_seconds:.0f} s"
    )

    return _settle(ranking, best, others, reasons)


def _explain_one_more(ranking: Ranking, best: Candidate, alone: float) -> list[str]:
    """Return what one more machine of the same kind would bring, if that is a gain.

    None for a CPU, whose machines are no faster together, and for a text that is too small.
    """
    now = ranking.speedup_of(best.model, alone).factor
    more = ranking.speedup_of(best.model, alone, more_machines=1).factor
    gain = more / now
    if ranking.probe.machine.device != "cuda" or best.is_cut or gain <= 1:
        return []

    there = best.prediction.bits_per_byte
    reached = ranking.predict(best.model, gain * best.tokens).bits_per_byte
    return [
        f"one more such machine would train {gain:.1f} times as fast: {reached:.3f} instead of "
        f"{there:.3f} bits per byte with this shape"
    ]


def _settle(
    ranking: Ranking,
    best: Candidate,
    others: list[Candidate],
    reasons: list[str],
    tier: Tier | None = None,
) -> Plan:
    """Return the plan of the shape chosen; `reasons` are those of its choice."""
    params = ranking.params
    text = ranking.text
    is_compiled = best.is_compiled or params.training.compile == "on"
    max_steps = params.budget.max_steps or (tier.max_steps if tier else None)
    trainer = ranking.choose_trainer(
        best.model, expected_tokens=best.tokens, is_compiled=is_compiled, max_steps=max_steps
    )

    tokens = best.tokens if max_steps is None else max_steps * trainer.batch_tokens
    epochs = tokens / max(1, text.epoch_tokens)
    keep_best = is_repeated(epochs)
    prediction = ranking.predict(best.model, tokens)

    available = max(0.0, ranking.training_seconds(best.model))
    seconds = best.training_seconds if best.is_cut else available
    whole = ranking.whole_evaluation_seconds(best.model)
    scoring = ranking.evaluation_seconds(best.model)
    scoring_reserve = ranking.time.closing.scoring_margin * scoring
    validation_tokens = VALIDATION_FRACTION * seconds * ranking.probe.score_speed(best.model)

    reasons = [*reasons, *explain_switches(trainer)]
    alone = ranking.probe.speed_of(best.model, is_compiled=best.is_compiled)
    reasons += ranking.speedup_of(best.model, alone).reasons()
    reasons += _explain_one_more(ranking, best, alone)
    if keep_best:
        reasons.append(
            f"the text is read {epochs:.1f} times: dropout {trainer.dropout:g}, weight decay "
            f"{trainer.weight_decay:g}, and the best validated weights are kept"
        )
    if best.is_cut:
        reasons.append(
            f"the text is small: after more than {epochs:.0f} epochs a model only memorizes it, "
            f"so training takes {best.training_seconds:.0f} of the {available:.0f} s that are left"
        )

    return Plan(
        planner=params.budget.planner,
        model=best.model,
        trainer=trainer,
        num_parameters=count_parameters(best.model),
        expected_tokens=tokens,
        expected_epochs=epochs,
        tokens_per_second=best.tokens_per_second,
        matrix_flops_per_second=ranking.probe.machine.all_flops_per_second,
        training_seconds=seconds,
        reserve_seconds=ranking.time.closing.seconds + scoring_reserve,
        scoring_reserve_seconds=scoring_reserve,
        validation_tokens=int(max(best.model.context_length, validation_tokens)),
        sample_tokens=0 if seconds < SAMPLE_FROM_SECONDS else SAMPLE_TOKENS,
        evaluation_seconds=scoring,
        is_scored_whole=scoring >= whole,
        memory_bytes=plan_memory_bytes(best.model, trainer, keep_best=keep_best),
        predicted_bits_per_byte=prediction.bits_per_byte,
        predicted_low=prediction.low,
        predicted_high=prediction.high,
        keep_best=keep_best,
        bytes_per_token=text.bytes_per_token,
        difficulty=text.difficulty,
        speed_correction=ranking.probe.correction.speed,
        reasons=reasons,
        alternatives=list(list_runners_up(best, others)),
    )
