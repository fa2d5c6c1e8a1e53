"""Counting in a run: the text's tokens before the plan, and the plan's choice to mix."""

from collections.abc import Callable
from pathlib import Path

from lightlm.budget import planner
from lightlm.budget.candidate import TextFacts
from lightlm.budget.mixing import add_counts, choose_most_tokens, reserve_mixing
from lightlm.budget.plan import CountsPlan, Plan
from lightlm.budget.probe import Probe
from lightlm.budget.ranking import TimeLeft
from lightlm.data.shards import TokenShards
from lightlm.ngram.stage import CountedText, can_count, count_shards
from lightlm.params import Params
from lightlm.store.lock import ignore


def count_text(
    home: Path,
    params: Params,
    shards: TokenShards,
    seconds: float,
    report: Callable[[str], None] = ignore,
) -> CountedText | None:
    """Return the text's count tables, made now or found; None where params, the text's size or the
    `seconds` left leave the network alone.
    """
    most = choose_most_tokens(shards.num_train_tokens, seconds)
    if params.model.ngram == "off" or not most or not can_count(shards):
        return None
    return count_shards(home, shards, most, report=report)


def plan_with_counts(
    params: Params,
    text: TextFacts,
    probe: Probe,
    time: TimeLeft,
    counted: CountedText | None,
    num_scored: int,
) -> Plan:
    """Return the plan for the time left, with count tables where both together are forecast to be
    better; `num_scored` tokens are held out.
    """
    alone = planner.plan(params, text, probe, time)
    if counted is None:
        return alone

    closing = reserve_mixing(time.closing, num_scored, counted.seconds_per_token)
    counts = CountsPlan(
        fingerprint=counted.fingerprint,
        num_tokens=counted.num_tokens,
        counting_bits_per_byte=counted.bits_per_byte,
    )
    mixed = planner.plan(params, text, probe, time._replace(closing=closing))
    return add_counts(alone, mixed, counts, params.budget.hours, text.num_train_bytes)
