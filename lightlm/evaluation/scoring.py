"""Scoring a model on held-out text: its loss in bits per byte of the raw text.

The score is the sum of the nats of all tokens, separators included, divided by ln 2 and by the
UTF-8 bytes of the raw text. Windows of the model's context lie side by side, so that each token is
predicted once.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from lightlm.data.shards import TokenArray, TokenShards
from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.errors import DatasetError
from lightlm.evaluation.score import Score, bits_per_byte
from lightlm.model.memory import is_out_of_memory
from lightlm.model.transformer import Transformer

BATCH_TOKENS = 8192
"""Tokens scored at once: full speed on a CPU, and 32 MB of logits by the chunked head."""


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
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            scored = list(_score_windows(model, tokens, batch_tokens, should_stop))
    finally:
        model.train(was_training)
    return np.concatenate(scored) if scored else np.empty(0, dtype=np.float32)


def score_documents(
    model: Transformer,
    shards: TokenShards,
    *,
    max_bytes: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    should_stop: Callable[[], bool] = never,
) -> tuple[np.ndarray, np.ndarray]:
    """Return nats (float64) and bytes (int64) of each held-out document, for a paired bootstrap.

    A document's separator counts as its own. With a limit of bytes, or when asked to stop, these
    are the first documents that were scored to their end; at least one.
    """
    offsets = shards.validation_offsets().astype(np.int64)
    tokens = shards.tokens("validation")
    return _score_spans(model, tokens, offsets, max_bytes, batch_tokens, should_stop)


def score_texts(
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Sequence[bytes],
    *,
    ends: np.ndarray,
    batch_tokens: int = BATCH_TOKENS,
    should_stop: Callable[[], bool] = never,
) -> tuple[np.ndarray, np.ndarray]:
    """Return nats and bytes of each document, for a model with a tokenizer of its own.

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
    return _score_spans(
        model, tokens, np.asarray(offsets, dtype=np.int64), None, batch_tokens, should_stop
    )


def _score_spans(
    model: Transformer,
    stream: np.ndarray | TokenArray,
    offsets: np.ndarray,
    max_bytes: int | None,
    batch_tokens: int,
    should_stop: Callable[[], bool],
) -> tuple[np.ndarray, np.ndarray]:
    wanted = len(offsets) - 1
    if max_bytes is not None:
        wanted = max(1, int(np.searchsorted(offsets[1:, 1], max_bytes, side="right")))

    tokens = stream[0 : int(offsets[wanted, 0])]
    nats = score_tokens(model, tokens, batch_tokens=batch_tokens, should_stop=should_stop)
    first_end = int(offsets[1, 0])
    if len(nats) < first_end - 1:
        rest = score_tokens(model, tokens[len(nats) : first_end], batch_tokens=batch_tokens)
        nats = np.concatenate((nats, rest))

    done = int(np.searchsorted(offsets[1 : wanted + 1, 0], len(nats) + 1, side="right"))
    # Token i + 1 costs nats[i], and the first document starts at token 1.
    ends = np.cumsum(nats, dtype=np.float64)[offsets[1 : done + 1, 0] - 2]
    return np.diff(ends, prepend=0.0), np.diff(offsets[: done + 1, 1])


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
    """Return the score of the first held-out documents, from the nats of each."""
    num_documents = len(nats)
    num_tokens = int(shards.validation_offsets()[num_documents, 0]) - 1
    text = shards.validation_text(num_documents)
    is_whole = num_documents == shards.num_validation_documents
    return _describe(float(nats.sum()), num_tokens, text, num_documents, is_whole=is_whole)


def evaluate_text(
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Sequence[bytes],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Score:
    """Return the score on documents, each after an end-of-text token.

    Raises:
        DatasetError: it is empty.
    """
    text = b"".join(documents)
    if not text:
        raise DatasetError("the text to score is empty; give at least one byte")
    ids = [tokenizer.end_of_text_id]
    for document in documents:
        ids += [*tokenizer.encode(document.decode("utf-8")), tokenizer.end_of_text_id]
    nats = score_tokens(model, np.asarray(ids[:-1], dtype=np.int64), batch_tokens=batch_tokens)
    return _describe(
        float(nats.sum(dtype=np.float64)), len(nats), text, len(documents), is_whole=True
    )


def _describe(
    nats: float, num_tokens: int, text: bytes, num_documents: int, *, is_whole: bool
) -> Score:
    return Score(
        bits_per_byte=bits_per_byte(nats, len(text)),
        nats_per_token=nats / num_tokens,
        num_bytes=len(text),
        num_tokens=num_tokens,
        num_documents=num_documents,
        text_sha256=hashlib.sha256(text).hexdigest(),
        is_whole=is_whole,
    )


def _score_windows(
    model: Transformer,
    tokens: np.ndarray | TokenArray,
    batch_tokens: int,
    should_stop: Callable[[], bool],
) -> Iterator[np.ndarray]:
    length = model.config.context_length
    total = len(tokens)
    device = model.embedding.device
    windows = max(1, batch_tokens // length)
    position = 0

    while position + 1 < total and not should_stop():
        count = min(windows, (total - 1 - position) // length)
        span = count * length if count else total - 1 - position
        ids = torch.from_numpy(tokens[position : position + span + 1].astype(np.int64)).to(device)
        shape = (count, length) if count else (1, span)
        try:
            nats = model(ids[:-1].view(shape), ids[1:].view(shape))
        except (RuntimeError, MemoryError) as error:
            if count <= 1 or not is_out_of_memory(error):
                raise
            windows = (count + 1) // 2
            continue
        yield nats.flatten().float().cpu().numpy()
        position += span
