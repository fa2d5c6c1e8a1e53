"""The end of a run with count tables: a gate for the network that was trained, and whether both
together are better than it is alone.
"""

import time
from pathlib import Path

import numpy as np

from lightlm.data.shards import TokenShards
from lightlm.errors import StoreError
from lightlm.evaluation.scoring import describe_tokens
from lightlm.model.transformer import Transformer
from lightlm.ngram.gate import fit_gate, mix_nats, squash
from lightlm.ngram.held_back import read_held_back
from lightlm.ngram.mixture import (
    FOLDER,
    NUM_CONTEXTS,
    CountingModel,
    copy_counts,
    list_features,
    read_counts,
    write_gate,
)
from lightlm.store.commit import open_commit
from lightlm.training.messages import TrainRequest

LEAST_GAIN = 0.003
"""Fraction of the network's nats on the held-back text that the counts have to gain."""


def fit_gate_for(
    request: TrainRequest, model: Transformer, shards: TokenShards
) -> np.ndarray | None:
    """Return the weights that mix a model with the request's counts; None: it stays alone.

    Tables that were lost meanwhile are no reason to lose the network.
    """
    if request.counts_folder is None:
        return None
    try:
        return fit_mixture(model, shards, request.counts_folder, request.gate_seconds)
    except StoreError:
        return None


def fit_mixture(
    model: Transformer, shards: TokenShards, counts_folder: Path, max_seconds: float
) -> np.ndarray | None:
    """Return the weights of a gate between a network and the counts of a text; None where the two
    together are no better on the text held back for it.

    Of that text, as much is read as `max_seconds` allow, at least a stretch.

    Raises:
        CorruptError: the tables are not as they were written.
    """
    counting = CountingModel(read_counts(open_commit(counts_folder).folder))
    ends_at = time.monotonic() + max_seconds
    features, network, counted = [], [], []
    for stretch in read_held_back(shards.tokens("train")):
        if features and time.monotonic() > ends_at:
            break
        nats, entropies, most = (part[NUM_CONTEXTS:] for part in describe_tokens(model, stretch))
        likely, totals, backoffs = (part[NUM_CONTEXTS:] for part in counting.score(stretch))
        features.append(list_features(entropies, most, totals, backoffs))
        network.append(np.exp(-nats.astype(np.float64)))
        counted.append(likely)

    rows, ours, theirs = (np.concatenate(parts) for parts in (features, network, counted))
    weights = fit_gate(rows, ours, theirs)
    together = mix_nats(squash(rows @ weights), ours, theirs).mean()
    return weights if together < (1 - LEAST_GAIN) * -np.log(ours).mean() else None


def add_tables(folder: Path, counts_folder: Path, weights: np.ndarray) -> None:
    """Put count tables and a gate into a model's folder that is being written."""
    (folder / FOLDER).mkdir()
    copy_counts(counts_folder, folder / FOLDER)
    write_gate(folder / FOLDER, weights)
