"""The counting model and its mixture with a network: probabilities from tables of counted n-grams.

Interpolated modified Kneser-Ney over tokens: Chen and Goodman (1999), "An empirical study of
smoothing techniques". From the shortest context to the longest, the probability of a token is
`max(count - discount, 0) / total + backoff * (probability after the next shorter context)`.

MLflow copies this file next to a registered model, so it imports nothing of LightLM.
"""

import functools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

ORDER = 6
"""Tokens of the longest gram: five are known, one is predicted."""

NUM_CONTEXTS = ORDER - 1
"""Lengths of contexts."""

ABSENT = -1
"""Link of an id that the text does not have."""

FOLDER = "ngram"
COUNTS_FILE = "counts.safetensors"
GATE_FILE = "gate.safetensors"
"""Names in a model's folder: the counted text, and the weights of the gate."""

LOOKED_UP = 64
"""Contexts whose probabilities are kept: those of a drafted text, or of a batch."""

NUM_FEATURES = 2 * NUM_CONTEXTS + 4
"""Features of the gate: a constant, three of the network, two of each context."""


class Level(NamedTuple):
    """The grams of one length that the trie holds, in lexicographic order.

    `tokens` are their last tokens, `counts` how many different tokens came before them (of the
    longest: how often they were read). `links` are the places of their first followers in the next
    level, `spans` the numbers of these; where a span is 0, the gram was read once, and the link is
    the place of its follower in the text. All (N,); the longest grams have neither.
    """

    tokens: np.ndarray
    counts: np.ndarray
    links: np.ndarray
    spans: np.ndarray


@dataclass(frozen=True)
class Counts:
    """The counted text and its trie: `levels[0]` has a row for every id of the vocabulary.

    `discounts` (ORDER, 4), float64: what a count of 0, 1, 2, 3 or more of each length gives up.
    """

    text: np.ndarray
    levels: tuple[Level, ...]
    discounts: np.ndarray

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.levels[0].tokens)

    def write(self, folder: Path) -> None:
        """Write the tables into a folder, each as narrow as its numbers allow."""
        tensors = {"text": self.text, "discounts": self.discounts}
        for place, level in enumerate(self.levels):
            for name, values in level._asdict().items():
                if name != "tokens":
                    most = int(values.max(initial=0))
                    is_narrow = most < 1 << 16 and values.min(initial=0) >= 0
                    tensors[f"{place}.{name}"] = values.astype(np.uint16 if is_narrow else np.int32)
                else:
                    tensors[f"{place}.{name}"] = values
        save_file(tensors, folder / COUNTS_FILE)
        (folder / COUNTS_FILE).chmod(0o644)


def read_counts(folder: Path) -> Counts:
    """Return the tables that a folder holds.

    Raises:
        OSError, ValueError, KeyError: it holds none, or not all of them.
    """
    tensors = load_file(folder / COUNTS_FILE)
    levels = []
    for place in range(ORDER):
        tokens, *others = (tensors[f"{place}.{name}"] for name in Level._fields)
        levels.append(Level(tokens, *(values.astype(np.int32) for values in others)))
    return Counts(tensors["text"], tuple(levels), tensors["discounts"])


Context = tuple[int, ...]
"""The nodes of the last token, of the last two, and so on, as far as they were read: an index of
the level, or, below zero, -1 - the place in the text of what follows.
"""


@dataclass(frozen=True)
class Followers:
    """What is derived of a level's grams with followers: `shares` (of the next level) is what is
    left of each follower's count after its discount; `totals` and `backoffs` are of this level.
    """

    shares: np.ndarray
    totals: np.ndarray
    backoffs: np.ndarray


class CountingModel:
    """Probabilities of `counts`, of a stream or after one context."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        # One row more, so that an index of what was not found is no error.
        self._text = np.append(counts.text, counts.text.dtype.type(0))
        self._followed = [
            (np.append(level.spans, np.int32(0)), np.append(level.links, np.int32(0)))
            for level in counts.levels[1:NUM_CONTEXTS]
        ]
        """Spans and links of the grams that `_follow` reaches."""

        self.vocab_size = counts.vocab_size
        self.followers = [_derive(counts, place) for place in range(NUM_CONTEXTS)]
        self.once = 1 - counts.discounts[1:, 1]
        """Share of the one follower of a context of each length that was read once."""

        first = counts.levels[0].counts
        given_up = counts.discounts[0][np.minimum(first, 3)]
        total = max(1, int(first.sum()))
        left = given_up.sum() / total if first.any() else 1.0
        self.unigrams = ((first - given_up) / total + left / self.vocab_size).astype(np.float32)

    def advance(self, context: Context, token: int) -> Context:
        """Return the context after one more token."""
        levels = self.counts.levels
        if levels[0].links[token] == ABSENT:
            return ()
        nodes = [token if levels[0].spans[token] else -1 - int(levels[0].links[token])]
        for place, node in enumerate(context[: NUM_CONTEXTS - 1]):
            found = self._step(place, node, token)
            if found is None:
                break
            nodes.append(found)
        return tuple(nodes)

    def _step(self, place: int, node: int, token: int) -> int | None:
        """Return the node of the gram that `token` extends the gram `node` to."""
        text = self.counts.text
        if node < 0:
            at = -1 - node
            return node - 1 if at < len(text) and text[at] == token else None
        level = self.counts.levels[place]
        first = level.links[node]
        after = self.counts.levels[place + 1]
        found = first + np.searchsorted(after.tokens[first : first + level.spans[node]], token)
        if found == first + level.spans[node] or after.tokens[found] != token:
            return None
        return int(found) if after.spans[found] else -1 - int(after.links[found])

    def predict(self, context: Context) -> np.ndarray:
        """Return the probabilities of every id after a context, (V,) float32."""
        likely = self.unigrams.copy()
        text = self.counts.text
        for place, node in enumerate(context):
            if node < 0:
                likely *= 1 - self.once[place]
                if -1 - node < len(text):
                    likely[text[-1 - node]] += self.once[place]
                continue
            level = self.counts.levels[place]
            row = self.followers[place]
            first = level.links[node]
            span = slice(first, first + level.spans[node])
            likely *= row.backoffs[node]
            likely[self.counts.levels[place + 1].tokens[span]] += row.shares[span]
        return likely

    def describe(self, context: Context) -> tuple[np.ndarray, np.ndarray]:
        """Return by length how often a context was continued, and what it leaves to shorter ones,
        both (NUM_CONTEXTS,): 0 and 1 where it was not read.
        """
        totals = np.zeros(NUM_CONTEXTS, dtype=np.float32)
        backoffs = np.ones(NUM_CONTEXTS, dtype=np.float32)
        for place, node in enumerate(context):
            is_once = node < 0
            row = self.followers[place]
            totals[place] = 1 if is_once else row.totals[node]
            backoffs[place] = 1 - self.once[place] if is_once else row.backoffs[node]
        return totals, backoffs

    def score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the probabilities of tokens[1:] after all that comes before each, (n,), and the
        figures of `describe` for each, (n, NUM_CONTEXTS).
        """
        wanted = tokens[1:].astype(np.int64)
        level = self.counts.levels[0]
        likely = self.unigrams[wanted].astype(np.float64)
        before = tokens[:-1].astype(np.int64)
        nodes = np.where(level.spans[before] > 0, before, -1 - level.links[before].astype(np.int64))
        is_known = level.links[before] != ABSENT
        totals = np.zeros((len(wanted), NUM_CONTEXTS), dtype=np.float32)
        backoffs = np.ones((len(wanted), NUM_CONTEXTS), dtype=np.float32)

        for place in range(NUM_CONTEXTS):
            found, is_found = self._find(place, nodes, is_known, wanted)
            is_once = is_known & (nodes < 0)
            rows = np.where(is_known & ~is_once, nodes, 0)
            row = self.followers[place]
            once = self.once[place]
            backoff = np.where(is_once, 1 - once, row.backoffs[rows])
            share = np.where(is_once, once, row.shares[found])
            share = np.where(is_found, share, 0.0)
            likely = np.where(is_known, share + backoff * likely, likely)
            totals[is_known, place] = np.where(is_once, 1, row.totals[rows])[is_known]
            backoffs[is_known, place] = backoff[is_known]
            if place + 1 < NUM_CONTEXTS:
                nodes, is_known = self._follow(place, nodes, found, is_found)

        return likely, totals, backoffs

    def _find(
        self, place: int, nodes: np.ndarray, is_known: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which row of the next level each wanted token is, after the context `nodes`, and
        whether it followed that context.
        """
        keys = self._keys(place)
        asked = np.where(is_known & (nodes >= 0), nodes * self.vocab_size + wanted, -1)
        found = np.minimum(np.searchsorted(keys, asked), max(0, len(keys) - 1))
        is_found = (keys[found] == asked) if len(keys) else np.zeros(len(asked), dtype=bool)
        is_once = is_known & (nodes < 0)
        at = np.where(is_once, -1 - nodes, 0)
        is_next = (at < len(self.counts.text)) & (self._text[at] == wanted)
        return found, np.where(is_once, is_next, is_found)

    def _follow(
        self, place: int, nodes: np.ndarray, found: np.ndarray, is_found: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the contexts of the next length that the wanted tokens end, shifted to those that
        they precede, and whether they were read.
        """
        spans, links = self._followed[place]
        reached = np.where(spans[found] > 0, found, -1 - links[found].astype(np.int64))
        reached = np.where(nodes < 0, nodes - 1, reached)
        # The first wanted token has no longer context than the one before it.
        return (
            np.concatenate(([0], reached[:-1])),
            np.concatenate(([False], is_found[:-1])),
        )

    @functools.lru_cache(maxsize=NUM_CONTEXTS)  # noqa: B019  (the tables live as long as the model)
    def _keys(self, place: int) -> np.ndarray:
        """Return the grams of the next level as numbers in ascending order: node * V + token."""
        level = self.counts.levels[place]
        parents = np.repeat(np.arange(len(level.spans)), level.spans)
        return parents * self.vocab_size + self.counts.levels[place + 1].tokens


def _derive(counts: Counts, place: int) -> Followers:
    """Return a level's followers; one row more, so that what was not found has one as well."""
    level = counts.levels[place]
    numbers = counts.levels[place + 1].counts
    given_up = counts.discounts[place + 1][np.minimum(numbers, 3)]
    inner = np.flatnonzero(level.spans)
    starts = level.links[inner]
    totals = np.zeros(len(level.spans) + 1, dtype=np.float32)
    backoffs = np.ones(len(level.spans) + 1, dtype=np.float32)
    if not len(inner):
        return Followers(np.zeros(1, dtype=np.float32), totals, backoffs)
    sums = np.add.reduceat(numbers, starts, dtype=np.int64)
    totals[inner] = sums
    backoffs[inner] = np.add.reduceat(given_up, starts) / sums
    shares = (numbers - given_up) / np.repeat(sums, level.spans[inner])
    return Followers(np.append(shares, 0).astype(np.float32), totals, backoffs)


class Mixture:
    """A network and a counting model together: a gate weighs the two at each token.

    `weights` (NUM_FEATURES,) of the gate, whose sigmoid is the network's share; see
    `list_features`.
    """

    def __init__(self, model: CountingModel, weights: np.ndarray) -> None:
        self.model = model
        self.weights = weights
        # A draft of greedy text and its check ask for the same contexts.
        self._look_up = functools.lru_cache(maxsize=LOOKED_UP)(
            lambda context: (model.predict(context), *model.describe(context))
        )

    def read(self, ids: Sequence[int]) -> Context:
        """Return the context that ids end with."""
        context: Context = ()
        for index in ids[-NUM_CONTEXTS:]:
            context = self.model.advance(context, index)
        return context

    def read_all(self, ids: Sequence[int]) -> list[Context]:
        """Return the context that each of the ids ends."""
        contexts = []
        context: Context = ()
        for index in ids:
            context = self.model.advance(context, index)
            contexts.append(context)
        return contexts

    def mix(self, logits: np.ndarray, contexts: Sequence[Context]) -> np.ndarray:
        """Return logits of both together, (B, V) float32, for a network's logits (B, V) after
        contexts that the counting model reads.

        They keep the network's scale: a share of 1 gives its own logits.
        """
        most = logits.max(-1, keepdims=True)
        shifted = logits - most
        likely = np.exp(shifted)
        sums = likely.sum(-1, keepdims=True)
        likely /= sums
        entropies = np.log(sums[:, 0]) - (likely * shifted).sum(-1)
        looked_up = [self._look_up(context) for context in contexts]
        counted, totals, backoffs = (np.stack(part) for part in zip(*looked_up, strict=True))
        share = self.weigh(entropies, -np.log(sums[:, 0]), totals, backoffs)[:, None]
        likely *= share
        counted *= 1 - share
        likely += counted
        return np.log(likely) + (most + np.log(sums))

    def weigh(
        self, entropies: np.ndarray, most: np.ndarray, totals: np.ndarray, backoffs: np.ndarray
    ) -> np.ndarray:
        """Return the network's share at each token, (n,) float32; arguments as `list_features`."""
        sums = list_features(entropies, most, totals, backoffs) @ self.weights
        return (1 / (1 + np.exp(-sums))).astype(np.float32)


def list_features(
    entropies: np.ndarray, most: np.ndarray, totals: np.ndarray, backoffs: np.ndarray
) -> np.ndarray:
    """Return what a gate decides by, (n, NUM_FEATURES).

    `entropies` of the network's distributions and `most`, the natural logarithm of its likeliest
    token's probability, (n,); `totals` and `backoffs` as CountingModel.score gives them.
    """
    return np.column_stack(
        [np.ones_like(most), entropies / 3, most, np.exp(most), backoffs, np.log1p(totals) / 5]
    )


def open_mixture(folder: Path) -> Mixture | None:
    """Return the mixture in a model's folder; None where the network is alone.

    Raises:
        ValueError: the tables cannot be read.
    """
    if not (folder / FOLDER).is_dir():
        return None
    try:
        weights = load_file(folder / FOLDER / GATE_FILE)["weights"]
        model = CountingModel(read_counts(folder / FOLDER))
        if weights.shape != (NUM_FEATURES,):
            raise ValueError(f"the gate has {weights.shape[0]} weights, wanted {NUM_FEATURES}")
    except (OSError, ValueError, LookupError, SafetensorError) as error:
        raise ValueError(
            f"the count tables in {folder / FOLDER} cannot be read ({error}); download the version "
            "again, or train without them: --set model.ngram=off"
        ) from None
    return Mixture(model, weights)


def copy_counts(source: Path, folder: Path) -> None:
    """Copy the tables of a folder into another one."""
    shutil.copyfile(source / COUNTS_FILE, folder / COUNTS_FILE)


def write_gate(folder: Path, weights: np.ndarray) -> None:
    """Write a gate's weights into the folder of the tables."""
    save_file({"weights": weights}, folder / GATE_FILE)
    (folder / GATE_FILE).chmod(0o644)
