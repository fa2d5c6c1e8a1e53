"""The work of the stages before training: shared by a run and by `lightlm plan`."""

from pathlib import Path

from lightlm.budget.candidate import OtherFacts, TextFacts
from lightlm.budget.ledger import SECONDS_PER_HOUR
from lightlm.budget.mixing import choose_counted_bytes
from lightlm.budget.neighbors import Neighbors
from lightlm.budget.probe import (
    MachineRate,
    is_reference_worth_timing,
    measure_machine,
)
from lightlm.budget.scaling import difficulty_of, estimate_needed_bytes
from lightlm.budget.switches import check_switches
from lightlm.budget.vocabulary import choose_vocab_sizes
from lightlm.data.ngram import measure_ngram_bits
from lightlm.data.shards import TokenShards
from lightlm.data.subset import TextSubset
from lightlm.params import Params
from lightlm.system import Device, SystemReport, check_system
from lightlm.training.supervisor import Worker

DATA_FRACTION = 0.1
"""Fraction of the time left that reading a slow source, such as the built-in text, may take."""


def inspect_machine(params: Params, home: Path, worker: Worker) -> SystemReport:
    """Return the report of this machine, with the devices that torch sees in the worker."""
    devices = worker.call("describe_devices")["devices"]
    return check_system(params, home, [Device.model_validate(device) for device in devices])


def measure_rate(
    params: Params, system: SystemReport, worker: Worker, neighbors: Neighbors | None = None
) -> MachineRate:
    """Return device, precision and matrix rate; with fewer threads if neighbors are busy.

    Raises:
        ParameterError: params demand what this machine does not have.
    """
    training = params.training
    if training.num_threads is None and neighbors is not None:
        training = training.model_copy(update={"num_threads": neighbors.num_threads})

    machine = measure_machine(training, system, worker, params.budget.hours * SECONDS_PER_HOUR)
    check_switches(params, system, machine)
    return machine


def needs_reference(params: Params, machine: MachineRate) -> bool:
    """Return whether the choice of a vocabulary needs the timing of a reference shape."""
    is_free = params.tokenizer.vocab_size is None
    return is_free and is_reference_worth_timing(machine, params.budget.hours * SECONDS_PER_HOUR)


def measure_difficulty(subset: TextSubset) -> float:
    """Return how hard the text is for a model; 1: as hard as WikiText-2. Takes 0.1 s."""
    return difficulty_of(*measure_ngram_bits(subset))


def estimate_text(params: Params, machine: MachineRate, seconds: float) -> list[int]:
    """Return the bytes of text that training and counting can use in `seconds`: powers of two, the
    best first.
    """
    least = 0.0 if params.model.ngram == "off" else choose_counted_bytes(seconds)
    return estimate_needed_bytes(machine.usual_flops, seconds, least)


def choose_sizes(
    params: Params, machine: MachineRate, seconds: float, num_bytes: int, difficulty: float
) -> list[int]:
    """Return the vocabulary sizes to try, the best first; or the one that params name."""
    if params.tokenizer.vocab_size:
        return [params.tokenizer.vocab_size]
    is_counted = params.model.ngram != "off"
    return choose_vocab_sizes(machine, seconds, num_bytes, difficulty, is_counted=is_counted)


def describe_text(shards: TokenShards, difficulty: float, name: str) -> TextFacts:
    """Return the facts about the tokenized text, and those mixed with it, that a plan needs."""
    return TextFacts(
        vocab_size=shards.vocab_size,
        num_train_tokens=shards.num_train_tokens,
        num_train_bytes=shards.num_train_bytes,
        num_validation_tokens=shards.num_validation_tokens,
        num_validation_bytes=shards.num_validation_bytes,
        text_sha256=shards.validation_sha256,
        difficulty=difficulty,
        name=name,
        num_first_tokens=int(shards.validation_offsets()[1, 0]),
        others=tuple(
            OtherFacts(
                name=text.subset.name,
                weight=text.weight,
                worth=text.worth,
                num_train_tokens=other.num_train_tokens,
                num_train_bytes=other.num_train_bytes,
                num_validation_tokens=other.num_validation_tokens,
            )
            for text, other in shards.others
        ),
    )


def estimate_facts(
    subset: TextSubset, vocab_size: int, bytes_per_token: float, difficulty: float
) -> TextFacts:
    """Return the facts about a text that is not tokenized yet, by the usual length of a token."""
    first = int(next(subset.read_lengths("validation"))[0])
    return TextFacts(
        vocab_size=vocab_size,
        num_train_tokens=max(1, int(subset.num_bytes / bytes_per_token)),
        num_train_bytes=subset.num_bytes,
        num_validation_tokens=max(1, int(subset.num_validation_bytes / bytes_per_token)),
        num_validation_bytes=subset.num_validation_bytes,
        text_sha256=subset.validation_sha256,
        difficulty=difficulty,
        num_first_tokens=int(first / bytes_per_token),
    )


def count_scored_tokens(params: Params, shards: TokenShards) -> int:
    """Return how many held-out tokens the final score reads, those of other texts among them."""
    limit = params.evaluation.max_bytes or shards.num_validation_bytes
    own = int(shards.num_validation_tokens * min(1.0, limit / max(1, shards.num_validation_bytes)))
    return own + sum(min(own, one.shards.num_validation_tokens) for one in shards.others)
