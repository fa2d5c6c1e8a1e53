"""Plans for machines that one does not have (params/machines): the text is read here, and no shape
is timed.
"""

from pathlib import Path
from typing import NamedTuple

from lightlm.budget.candidate import TextFacts
from lightlm.budget.ledger import SECONDS_PER_HOUR
from lightlm.budget.machine_forecast import MachineForecast, compare_machines, widen
from lightlm.budget.machines import list_machines, load_machine
from lightlm.budget.probe import Probe
from lightlm.console.progress import Progress
from lightlm.data.subset import TextSubset
from lightlm.params import Params
from lightlm.rendering.machines import render_machines
from lightlm.runs.planning import SAMPLE_BYTES, Planned, Stopwatch, plan_for, prepare_shards
from lightlm.runs.preparation import describe_text, measure_difficulty
from lightlm.store.commit import write_file

TIMED_HERE = "timed here:"
"""Beginning of the reason that lists what was timed, which is nothing."""

KNOWN_VOCABULARY = 4096
"""Entries of the tokenizer that counts the text's tokens. Other sizes are estimated from it: it is
trained in a second or two.
"""


class KnownText(NamedTuple):
    """A text as it is known here: the facts of a plan, and the subset that was read."""

    facts: TextFacts
    subset: TextSubset


def plan_elsewhere(home: Path, params: Params, name: str, *, is_quiet: bool) -> Planned:
    """Return the plan for a machine of params/machines, or of a file of one's own.

    Raises:
        ParameterError: no such machine.
        LightLMError: as the stages of `train` do for the text.
    """
    machine = load_machine(name)
    figures = machine.to_probe()
    text = read_text(home, params, figures, is_quiet=is_quiet)

    plan = plan_for(params.budget.hours, params, text.facts, text.subset, figures, home)
    plan = widen(plan, machine.doubt)
    reason = (
        f"{machine.title}: its rates are published or assumed (params/machines/{name}.yaml), and "
        f"may be wrong by {machine.doubt:.0%}; nothing was timed"
    )
    others = [line for line in plan.reasons if not line.startswith(TIMED_HERE)]
    plan = plan.model_copy(update={"reasons": [reason, *others]})
    return Planned(plan, figures, [], text.subset.summary(), text.subset.name, text.subset.notice)


def compare_elsewhere(
    home: Path, params: Params, names: list[str], here: Probe | None, *, is_quiet: bool
) -> list[MachineForecast]:
    """Return what 5 minutes, an hour and a night on each machine would reach with this text.

    On all machines if none is named, and on the one measured as `here`.
    """
    text = read_text(home, params, load_machine("h100").to_probe(), is_quiet=is_quiet)
    return compare_machines(
        names or list_machines(),
        lambda figures, hours: plan_for(hours, params, text.facts, text.subset, figures, home),
        here,
    )


def write_picture(forecasts: list[MachineForecast], path: Path) -> None:
    """Write the picture of forecasts as SVG."""
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for entry in sorted(forecasts, key=lambda entry: entry.hours):
        point = (SECONDS_PER_HOUR * entry.hours, entry.bits_per_byte, entry.low, entry.high)
        lines.setdefault(entry.machine, []).append(point)

    picture = render_machines("Bits per byte of this text that a machine would reach", lines)
    write_file(path, picture.encode())


def read_text(home: Path, params: Params, figures: Probe, *, is_quiet: bool) -> KnownText:
    """Return what a plan has to know of the text: what is stored, or a sample."""
    size = params.tokenizer.vocab_size or KNOWN_VOCABULARY
    known = params.model_copy(
        update={"tokenizer": params.tokenizer.model_copy(update={"vocab_size": size})}
    )
    seconds = params.budget.hours * SECONDS_PER_HOUR

    with Progress(Stopwatch(), quiet=is_quiet) as progress:
        subset, shards = prepare_shards(
            home, known, figures.machine, seconds, progress, SAMPLE_BYTES
        )
        return KnownText(describe_text(shards, measure_difficulty(subset), subset.name), subset)
