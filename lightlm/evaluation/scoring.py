"""Scoring a model on held-out text: its loss in bits per byte of the raw text.

The score is the sum of the nats of all tokens, separators included, divided by ln 2 and by the
UTF-8 bytes of the raw text. Windows of the model's context lie side by side, so that each token is
predicted once. With count tables, the two together are scored, and each alone.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lightlm.data.shards import TokenShards
from lightlm.data.token_array import TokenArray
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.errors import DatasetError
from lightlm.evaluation.score import Score, bits_per_byte
from lightlm.model.accounting import flops_per_token
from lightlm.model.cross_entropy import describe_targets
from lightlm.model.memory import is_out_of_memory
from lightlm.model.transformer import Transformer
from lightlm.ngram.gate import mix_nats
from lightlm.ngram.mixture import NUM_CONTEXTS, Mixture

BATCH_TOKENS = 8192
"""Tokens scored at once: full speed on a CPU, and 32 MB of logits by the chunked head."""

BATCH_FLOPS = 1e11
"""Floating-point operations of a batch on a CPU: one or two seconds of two cores. Whether to stop
is asked between batches, and 8,192 tokens of 135 M parameters took 47 s.
"""


MIXED_TOKENS = 1 << 17
"""Tokens whose probabilities by counts are looked up at once: 40 MB of features."""

TOGETHER, NETWORK, COUNTING = range(3)
"""Columns of the nats of a network with count tables: of both, and of each alone."""

Statistics = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Nats of each token, entropy of the distribution that gave them, and the natural logarithm of the
likeliest id's probability, (n,) float32 each.
"""


def never() -> bool:
    """Return False: no stop is asked for."""
    return False


def score_tokens(
    model: Transformer,
    tokens: np.ndarray | TokenArray,
    *,
    batch_tokens: int = BATCH_TOKENS,
    should_stop: Callable[[], bool] = never,
) -> np.ndarray:
    """Return the nats of tokens[1:], float32, each predicted from those before it in its window.

    Fewer when `should_stop` said so between two batches; the mode (training or not) of `model` is
    left as it was.
    """
    return _score_stream(model, tokens, batch_tokens, should_stop, _each_nats)[:, 0]


def describe_tokens(
    model: Transformer,
    tokens: np.ndarray | TokenArray,
    *,
    batch_tokens: int = BATCH_TOKENS,
    should_stop: Callable[[], bool] = never,
) -> Statistics:
    """Return what a gate learns of a network's prediction of tokens[1:]; fewer when asked to
    stop.
    """
    nats, entropies, most = _score_stream(
        model, tokens, batch_tokens, should_stop, _describe_logits
    ).T
    return nats, entropies, most


def score_mixture(
    model: Transformer,
    mixture: Mixture,
    tokens: np.ndarray | TokenArray,
    *,
    batch_tokens: int = BATCH_TOKENS,
    should_stop: Callable[[], bool] = never,
) -> np.ndarray:
    """Return the nats of tokens[1:], (n, 3) float64: of network and counts together, and of each
    alone. Fewer when asked to stop.
    """
    nats, entropies, most = describe_tokens(
        model, tokens, batch_tokens=batch_tokens, should_stop=should_stop
    )
    scored = np.empty((len(nats), 3))
    for start in range(0, len(nats), MIXED_TOKENS):
        span = slice(start, start + MIXED_TOKENS)
        first = max(0, start - NUM_CONTEXTS)
        seen = tokens[first : min(start + MIXED_TOKENS, len(nats)) + 1]
        counted, totals, backoffs = (
            part[start - first :] for part in mixture.model.score(np.asarray(seen))
        )
        share = mixture.weigh(entropies[span], most[span], totals, backoffs)
        likely = np.exp(-nats[span].astype(np.float64))
        scored[span, TOGETHER] = mix_nats(share, likely, counted)
        scored[span, NETWORK] = nats[span]
        scored[span, COUNTING] = -np.log(counted)
    return scored


def score_documents(
    model: Transformer,
    shards: TokenShards,
    *,
    mixture: Mixture | None = None,
    max_bytes: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    should_stop: Callable[[], bool] = never,
) -> tuple[np.ndarray, np.ndarray]:
    """Return nats (float64) and bytes (int64) of each held-out document, for a paired bootstrap.

    A document's separator counts as its own. With a limit of bytes, or when asked to stop, these
    are the first documents that were scored to their end; at least one. With a `mixture` the nats
    are (documents, 3), as `score_mixture` gives them.
    """
    offsets = shards.validation_offsets().astype(np.int64)
    tokens = shards.tokens("validation")
    score = _choose_score(model, mixture, batch_tokens)
    return _score_spans(score, tokens, offsets, max_bytes, should_stop)


def score_texts(
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Sequence[bytes],
    *,
    ends: np.ndarray,
    mixture: Mixture | None = None,
    batch_tokens: int = BATCH_TOKENS,
    should_stop: Callable[[], bool] = never,
) -> tuple[np.ndarray, np.ndarray]:
    """Return nats and bytes of each document, for a model with a tokenizer of its own.

    With a `mixture` as in `score_documents`.

    `ends`, (documents,) bool: whether a document ends with each, or goes on with the next. The
    stream is laid out as in token shards, so that two models are scored on the same text in the
    same order.
    """
    ids: list[int] = [tokenizer.end_of_text_id]
    offsets = [(1, 0)]
    encoded = tokenizer.encode_batch([document.decode("utf-8") for document in documents])
    for document, one, is_end in zip(documents, encoded, ends.tolist(), strict=True):
        ids.extend([*one, tokenizer.end_of_text_id] if is_end else one)
        offsets.append((len(ids), offsets[-1][1] + len(document)))
    tokens = np.asarray(ids, dtype=np.int64)
    score = _choose_score(model, mixture, batch_tokens)
    return _score_spans(score, tokens, np.asarray(offsets, dtype=np.int64), None, should_stop)


ScoreStream = Callable[[np.ndarray, Callable[[], bool]], np.ndarray]
"""Tokens, and whether to stop, to the nats of all but the first."""


def _choose_score(model: Transformer, mixture: Mixture | None, batch_tokens: int) -> ScoreStream:
    def score(tokens: np.ndarray, should_stop: Callable[[], bool]) -> np.ndarray:
        if mixture is None:
            return score_tokens(model, tokens, batch_tokens=batch_tokens, should_stop=should_stop)
        return score_mixture(
            model, mixture, tokens, batch_tokens=batch_tokens, should_stop=should_stop
        )

    return score


def _score_spans(
    score: ScoreStream,
    stream: np.ndarray | TokenArray,
    offsets: np.ndarray,
    max_bytes: int | None,
    should_stop: Callable[[], bool],
) -> tuple[np.ndarray, np.ndarray]:
    wanted = len(offsets) - 1
    if max_bytes is not None:
        wanted = max(1, int(np.searchsorted(offsets[1:, 1], max_bytes, side="right")))

    tokens = stream[0 : int(offsets[wanted, 0])]
    nats = score(tokens, should_stop)
    first_end = int(offsets[1, 0])
    if len(nats) < first_end - 1:
        nats = np.concatenate((nats, score(tokens[len(nats) : first_end], never)))

    done = int(np.searchsorted(offsets[1 : wanted + 1, 0], len(nats) + 1, side="right"))
    # Token i + 1 costs nats[i], and the first document starts at token 1.
    ends = np.cumsum(nats, axis=0, dtype=np.float64)[offsets[1 : done + 1, 0] - 2]
    return np.diff(ends, axis=0, prepend=np.zeros_like(ends[:1])), np.diff(offsets[: done + 1, 1])


def select_together(nats: np.ndarray) -> np.ndarray:
    """Return the nats of network and counts together where there are both, (documents,)."""
    return nats if nats.ndim == 1 else nats[:, TOGETHER]


def evaluate_shards(
    model: Transformer,
    shards: TokenShards,
    *,
    max_bytes: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    should_stop: Callable[[], bool] = never,
) -> Score:
    """Return the score on the held-out text, or on its first documents within bytes or time.

    At least one document is scored, whatever the limits.
    """
    nats, _ = score_documents(
        model, shards, max_bytes=max_bytes, batch_tokens=batch_tokens, should_stop=should_stop
    )
    return summarize_documents(shards, nats)


def summarize_documents(shards: TokenShards, nats: np.ndarray) -> Score:
    """Return the score of the first held-out documents, from the nats of each, (documents,) or
    (documents, 3).
    """
    num_documents = len(nats)
    num_tokens = int(shards.validation_offsets()[num_documents, 0]) - 1
    text = shards.validation_text(num_documents)
    is_whole = num_documents == shards.num_validation_documents
    return _describe(nats.sum(0), num_tokens, text, num_documents, is_whole=is_whole)


def evaluate_text(
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Sequence[bytes],
    *,
    mixture: Mixture | None = None,
) -> Score:
    """Return the score on documents, each after an end-of-text token.

    Raises:
        DatasetError: it is empty.
    """
    text = b"".join(documents)
    if not text:
        raise DatasetError("the text to score is empty; give at least one byte")
    tokens = encode_documents(tokenizer, documents)
    nats = _choose_score(model, mixture, BATCH_TOKENS)(tokens, never)
    total = nats.sum(0, dtype=np.float64)
    return _describe(total, len(nats), text, len(documents), is_whole=True)


def encode_documents(tokenizer: Tokenizer, documents: Sequence[bytes]) -> np.ndarray:
    """Return the ids of documents, each after an end-of-text token, (n,) int64."""
    ids = [tokenizer.end_of_text_id]
    for document in documents:
        ids += [*tokenizer.encode(document.decode("utf-8")), tokenizer.end_of_text_id]
    return np.asarray(ids[:-1], dtype=np.int64)


def _describe(
    nats: np.ndarray, num_tokens: int, text: bytes, num_documents: int, *, is_whole: bool
) -> Score:
    """Return the score of a text from the nats of all its tokens: of the network, or (3,)."""
    columns = [float(one) for one in np.atleast_1d(nats)]
    bits = [bits_per_byte(one, len(text)) for one in columns]
    return Score(
        bits_per_byte=bits[0],
        nats_per_token=columns[0] / num_tokens,
        num_bytes=len(text),
        num_tokens=num_tokens,
        num_documents=num_documents,
        text_sha256=hashlib.sha256(text).hexdigest(),
        is_whole=is_whole,
        network_bits_per_byte=bits[NETWORK] if len(bits) > 1 else None,
        counting_bits_per_byte=bits[COUNTING] if len(bits) > 1 else None,
    )


Read = Callable[[Transformer, Tensor, Tensor], Tensor]
"""Ids (B, T) and the ids that follow each, to what a model says about these, (B * T, columns)."""


def _each_nats(model: Transformer, ids: Tensor, targets: Tensor) -> Tensor:
    return model(ids, targets).flatten()[:, None]


def _describe_logits(model: Transformer, ids: Tensor, targets: Tensor) -> Tensor:
    hidden, _ = model.hidden_states(ids)
    return describe_targets(
        model.normalize(hidden.flatten(0, 1)), model.unembedding, targets.flatten()
    )


def _score_stream(
    model: Transformer,
    tokens: np.ndarray | TokenArray,
    batch_tokens: int,
    should_stop: Callable[[], bool],
    read: Read,
) -> np.ndarray:
    """Return what `read` says about tokens[1:], (n, columns) float32, in the model's own mode."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            scored = list(_score_windows(model, tokens, batch_tokens, should_stop, read))
    finally:
        model.train(was_training)
    return np.concatenate(scored) if scored else np.empty((0, 3), dtype=np.float32)


def _score_windows(
    model: Transformer,
    tokens: np.ndarray | TokenArray,
    batch_tokens: int,
    should_stop: Callable[[], bool],
    read: Read,
) -> Iterator[np.ndarray]:
    length = model.config.context_length
    total = len(tokens)
    device = model.embedding.device
    if device.type == "cpu":
        cost = flops_per_token(model.config, training=False)
        batch_tokens = min(batch_tokens, int(BATCH_FLOPS / cost))
    windows = max(1, batch_tokens // length)
    position = 0

    while position + 1 < total and not should_stop():
        count = min(windows, (total - 1 - position) // length)
        span = count * length if count else total - 1 - position
        ids = torch.from_numpy(tokens[position : position + span + 1].astype(np.int64)).to(device)
        shape = (count, length) if count else (1, span)
        try:
            columns = read(model, ids[:-1].view(shape), ids[1:].view(shape))
        except (RuntimeError, MemoryError) as error:
            if count <= 1 or not is_out_of_memory(error):
                raise
            windows = (count + 1) // 2
            continue
        yield columns.float().cpu().numpy()
        position += span
