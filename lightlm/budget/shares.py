"""The shares of several texts in a training: as a person gave them, or by a law for mixtures.

The law: after training on S bytes, of which the text k has the share s_k, the run is worth
sum_k w_k f(s_k S, U_k) bytes of fresh text of the first kind. U_k are the text's own bytes and f is
the law of repeats (Muennighoff et al. 2023, arXiv 2305.16264, with the horizon of
budget/calibration.json). w_k is what a byte of it is worth for the first text's held-out part,
measured by n-grams (data/ngram.py); w_0 is 1. The plan's loss law then takes that sum for its data.
"""

from collections.abc import Callable
from dataclasses import replace

from lightlm.budget.candidate import OtherFacts, TextFacts
from lightlm.budget.plan import Plan, TextPlan
from lightlm.budget.scaling import useful_epochs, worth_of_repeats
from lightlm.params import MOST_OTHERS

MOST_ONCE = 0.5
"""Fraction of training that a text gets at most which is to be read once."""

STEPS = 99
"""Shares that are compared, between none and MOST_OTHERS."""

ROUNDS = 8
"""Times that shares and plan are settled in turn: a plan's tokens depend on the shares, too."""


def settle_shares(text: TextFacts, make_plan: Callable[[TextFacts], Plan]) -> Plan:
    """Return the plan of a text; where there are others, with their shares of its tokens."""
    if not text.others:
        return make_plan(text)

    # First the tokens that there is time for: with these shares no text is too small for it.
    most = MOST_OTHERS / len(text.others)
    settled = replace(text, others=tuple(replace(one, share=most) for one in text.others))
    plan = make_plan(settled)
    for _ in range(ROUNDS):
        before = settled
        settled = share_out(text, plan.expected_tokens)
        if settled == before:
            break
        plan = make_plan(settled)

    texts = list_texts(settled, plan.expected_tokens)
    reasons = [*plan.reasons, *explain(settled, texts)]
    return plan.model_copy(update={"texts": texts, "reasons": reasons})


def share_out(text: TextFacts, tokens: int) -> TextFacts:
    """Return the facts with the share of each further text in a training of `tokens`."""
    fixed = [limit_share(one, tokens) for one in text.others]
    fixed = [share * min(1.0, MOST_OTHERS / max(sum(fixed), 1e-9)) for share in fixed]
    room = MOST_OTHERS - sum(fixed)
    free = [one.num_train_tokens * (one.weight == "auto") for one in text.others]

    def divide(share: float) -> TextFacts:
        """Give a share to the free texts, so that all of these are read equally often."""
        shares = (
            own + share * size / max(1, sum(free)) for own, size in zip(fixed, free, strict=True)
        )
        pairs = zip(text.others, shares, strict=True)
        return replace(text, others=tuple(replace(one, share=round(s, 6)) for one, s in pairs))

    seen = tokens * text.bytes_per_token
    choices = [divide(room * step / STEPS) for step in range(STEPS + 1 if any(free) else 1)]
    return max(choices, key=lambda choice: useful_worth(choice, seen))


def useful_worth(text: TextFacts, seen_bytes: float) -> float:
    """Return the sum of the law, where no text is worth more than as many epochs as help."""
    total = 0.0
    for one in text.texts:
        most = useful_epochs(one.num_train_bytes) * one.num_train_bytes
        read = min(one.share * seen_bytes, most)
        total += one.worth * worth_of_repeats(read, one.num_train_bytes)
    return total


def limit_share(other: OtherFacts, tokens: int) -> float:
    """Return the share that a person gave a text, or less: what it can be read with gain; 0 where
    it is left to the law.
    """
    whole = other.num_train_tokens / max(1, tokens)
    if isinstance(other.weight, float):
        return min(other.weight, useful_epochs(other.num_train_bytes) * whole)
    return min(whole, MOST_ONCE) if other.weight == "once" else 0.0


def list_texts(text: TextFacts, tokens: int) -> list[TextPlan]:
    """Return what each text gets of a training of `tokens`, the first text first."""
    return [
        TextPlan(
            name=one.name,
            share=one.share,
            tokens=round(one.share * tokens),
            epochs=one.share * tokens / max(1, one.num_train_tokens),
        )
        for one in text.texts
    ]


def explain(text: TextFacts, texts: list[TextPlan]) -> list[str]:
    """Return the reasons of the shares, a sentence each."""
    reasons = [f"of the tokens read: {', '.join(one.describe() for one in texts)}"]
    tokens = sum(one.tokens for one in texts)
    for one in text.others:
        if one.weight == "auto":
            reasons.append(
                f"{one.name}: by a trial with n-grams, a byte of it is worth {one.worth:.3f} of "
                f"{text.name}'s, which alone would be read "
                f"{tokens / max(1, text.num_train_tokens):.1f} times"
                + ("" if one.share else "; so it is left out")
            )
        elif one.weight == "once" and one.share >= MOST_ONCE:
            reasons.append(
                f"{one.name} is not read whole: it gets {one.share:.0%} of the tokens, so that "
                f"{text.name} keeps the rest"
            )
        elif isinstance(one.weight, float) and one.share < one.weight - 1e-5:
            reasons.append(
                f"{one.name} gets {one.share:.1%} of the tokens instead of {one.weight:.1%}: it is "
                "too small to be read more often with gain"
            )
    return reasons
