"""The probe of a base: its score on held-out documents before it is touched, and the seconds of a
training step by what is tuned.
"""

import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lightlm.data.loader import Batch
from lightlm.data.subset import TextSubset
from lightlm.data.tokenization.tokenizer import Tokenizer, load_tokenizer
from lightlm.errors import ModelVersionError
from lightlm.evaluation.scoring import score_tokens
from lightlm.model.adapters import drop_adapters, is_narrow
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.training.checkpoint import start_from
from lightlm.training.config import TrainerConfig
from lightlm.training.device import build_model, choose_tuned
from lightlm.training.messages import BaseProbe, TunedTiming
from lightlm.training.optimizer import Optimizer
from lightlm.training.timing import random_batch
from lightlm.training.trainer import measure_gradients

SCORING_SHARE = 0.4
"""Fraction of the time that scoring gets; the rest times steps."""

FEWEST_WINDOWS = 2
"""Windows of held-out text that are scored at least, however long that takes."""

FIRST_WINDOW = 32
"""Tokens of the window that tells the speed."""

STEP_COST = 6.0
"""Windows' scores that timing steps costs: two of a training step, three times a score each."""

QUICK_SECONDS = 1.0
"""Seconds of a step below which it is timed twice."""

WORD_BYTES = 40
"""Bytes after a place in which a word is looked for to begin a window with."""

FIRST_BYTES = 128
"""Bytes of the first window, about."""

CONTEXT_EXPONENT = 0.13
"""Bits per byte of the text fall by this power of a window's length, from 32 to 512 tokens.

SmolLM2-135M on 16 places each of German help pages, Python code, English books and WikiText:
windows of 32, 64, 128 and 256 tokens have 1.53, 1.35, 1.20 and 1.09 times the bits of 512; single
texts differ from that by up to 4 % a doubling.
"""

MOST_WINDOWS = 64
"""Windows that are scored at most: 32,000 tokens at a context of 512 are exact to about 1 %."""


def probe_base(
    folder: Path,
    subset: TextSubset,
    model: ModelConfig,
    trainers: Sequence[TrainerConfig],
    max_seconds: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> BaseProbe:
    """Return a base's figures within about `max_seconds`; the first of `trainers` is timed in any
    case, the others as far as time allows.

    Raises:
        ModelVersionError: its predictions are no numbers.
    """
    started = time.monotonic()
    built = build_model(model, trainers[0], is_filled=True)
    start_from(folder, built)

    tokenizer = load_tokenizer(folder)
    documents = list(subset.read_documents("validation"))
    ends = subset.read_ends("validation").tolist()
    # A short window tells how long one may be: on a slow machine a whole one takes seconds.
    shortest = min(FIRST_WINDOW, model.context_length)
    windows = cut_windows(documents, ends, tokenizer, shortest, FIRST_BYTES)
    first = _score(built, itertools.islice(windows, 1), 0.0)
    length = fit_length(model, first.speed * SCORING_SHARE * max_seconds / FEWEST_WINDOWS)
    num_bytes = max(1, length * first.num_bytes // max(1, first.num_tokens))
    windows = cut_windows(documents, ends, tokenizer, length, num_bytes)
    scored = _score(built, windows, time.monotonic() + SCORING_SHARE * max_seconds, should_stop)
    if not math.isfinite(scored.nats):
        raise ModelVersionError(
            f"{folder} predicts text with {scored.nats} nats: its weights are damaged; give the "
            "base again"
        )

    # A text of fewer tokens has no window of the whole context.
    whole = sum(map(len, documents)) * scored.num_tokens / max(1, scored.num_bytes)
    shorter = max(1.0, min(model.context_length, whole) / length)
    bits = scored.nats / math.log(2) / max(1, scored.num_bytes)
    length = fit_length(model, scored.speed * (1 - SCORING_SHARE) * max_seconds / STEP_COST)
    timings = []
    for trainer in trainers:
        is_late = time.monotonic() - started > max_seconds
        if timings and (is_late or should_stop()):
            break
        timings.append(time_tuned(built, trainer, length))

    return BaseProbe(
        bits_per_byte=bits * shorter**-CONTEXT_EXPONENT,
        num_doublings=math.log2(shorter),
        num_bytes=scored.num_bytes,
        num_tokens=max(1, scored.num_tokens),
        score_tokens_per_second=scored.speed,
        timings=tuple(timings),
    )


class Scored(NamedTuple):
    """Windows that were scored: their nats, bytes and tokens, and tokens per second."""

    nats: float
    num_bytes: int
    num_tokens: int
    speed: float


def _score(
    model: Transformer,
    windows: Iterable[tuple[np.ndarray, int]],
    ends_at: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scored:
    """Return the score of windows, of as many as fit into the time, but of FEWEST_WINDOWS."""
    nats, num_bytes, num_tokens = 0.0, 0, 0
    started = time.monotonic()
    for number, (tokens, size) in enumerate(windows):
        if number >= FEWEST_WINDOWS and (time.monotonic() > ends_at or should_stop()):
            break
        nats += float(score_tokens(model, tokens).sum())
        num_tokens += len(tokens) - 1
        num_bytes += size
    seconds = max(time.monotonic() - started, 1e-9)
    return Scored(nats, num_bytes, num_tokens, max(1, num_tokens) / seconds)


def fit_length(model: ModelConfig, num_tokens: float) -> int:
    """Return the window that so many tokens allow: the context's, or a shorter one."""
    length = model.context_length
    while length > FIRST_WINDOW and length > num_tokens:
        length //= 2
    return length


def choose_places(sizes: Sequence[int], window_bytes: int) -> list[tuple[int, int]]:
    """Return the document and the byte in it of places that lie evenly over the whole text, mixed,
    so that the first few are spread as well.

    At most MOST_WINDOWS, `window_bytes` apart at least; the first is the text's beginning.
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    number = max(1, min(MOST_WINDOWS, total // window_bytes))
    places = [index * total // number for index in range(number)]
    random.Random(0).shuffle(places)  # noqa: S311
    documents = np.searchsorted(ends, places, side="right").tolist()
    return [
        (document, place - int(ends[document] - sizes[document]))
        for document, place in zip(documents, places, strict=True)
    ]


def cut_windows(
    documents: Sequence[bytes],
    ends: Sequence[bool],
    tokenizer: Tokenizer,
    context_length: int,
    window_bytes: int,
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield token ids from all over the text, a window each, and the raw bytes of all but the
    first.

    As the final score has them: a window may begin inside of a document, and goes on with the next.
    `ends` says whether a document ends with each, or goes on with the next; a window has about
    `window_bytes`.
    """
    end = tokenizer.end_of_text_id
    sizes = [len(document) for document in documents]
    for number, place in choose_places(sizes, window_bytes):
        first = documents[number][place:]
        is_start = not place and (not number or ends[number - 1])
        # Where no document starts: at a character, and at a word where one begins soon.
        words = (at for at, byte in enumerate(first[:WORD_BYTES]) if byte in b" \n")
        rest = [first if is_start else first[next(words, 0) :], *documents[number + 1 :]]
        ids = [end] if is_start else []
        for one, is_end in zip(rest, ends[number:], strict=True):
            # More than a window's bytes are never needed, and a book is long.
            text = one[: 16 * context_length]
            ids += tokenizer.encode(text.decode("utf-8", "ignore"))
            if len(ids) > context_length or len(text) < len(one):
                break
            ids += [end] if is_end else []
        ids = ids[: context_length + 1]
        if len(ids) > 1:
            yield np.asarray(ids, dtype=np.int64), len(tokenizer.decode_bytes(ids[1:]))


def time_tuned(model: Transformer, trainer: TrainerConfig, length: int) -> TunedTiming:
    """Return the seconds of a step of one sequence of `length`; the weights do not change."""
    choose_tuned(model, trainer)
    optimizer = Optimizer(model, trainer)
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    one = trainer.model_copy(update={"batch_tokens": length})
    batch = random_batch(model.config.model_copy(update={"context_length": length}), one)
    model.train()

    token_seconds = _time(model, parameters, batch)
    if token_seconds * length < QUICK_SECONDS:  # the first step is slow where steps are quick
        token_seconds = min(token_seconds, _time(model, parameters, batch))
    before = time.monotonic()
    optimizer.step(0.0, 0.0)
    update_seconds = time.monotonic() - before
    frozen_bytes = 2 if is_narrow(model) else 4

    for weight in parameters:
        weight.grad = None
    drop_adapters(model)
    return TunedTiming(
        tuned=trainer.tuned,
        num_layers=trainer.num_tuned_layers if trainer.tuned == "last" else 0,
        token_seconds=token_seconds,
        update_seconds=update_seconds,
        frozen_bytes=frozen_bytes,
    )


def _time(model: Transformer, parameters: list[torch.nn.Parameter], batch: Batch) -> float:
    before = time.monotonic()
    measure_gradients(model, parameters, batch, 1)
    return (time.monotonic() - before) / batch.inputs.numel()
