"""Tests of signatures: copies meet in a bucket, others do not, and files are sorted."""

import numpy as np

from lightlm.data.building.sketches import BUCKETS, RECORD, Signatures
from tests.data.corpora import make_text


def read_buckets(texts: list[str]) -> list[np.ndarray]:
    signatures = Signatures()
    half = len(texts) // 2
    for first, part in ((0, texts[:half]), (half, texts[half:])):
        signatures.add(range(first, first + len(part)), [text.encode() for text in part])
    return [np.frombuffer(content, RECORD) for content in signatures.write()]


def count_meetings(one: str, other: str) -> int:
    """Return in how many buckets two documents meet."""
    return sum(
        len(np.unique(bucket[list(RECORD.names[:-1])])) == 1
        for bucket in read_buckets([one, other])
    )


def test_copies_meet_and_others_do_not() -> None:
    text = make_text(1, 200)
    assert count_meetings(text, text) == BUCKETS
    assert count_meetings(text, f"  {text.upper()}\n") == BUCKETS
    assert count_meetings(text, f"{text} and a little more") > 3
    assert count_meetings(text, make_text(2, 200)) == 0


def test_of_short_documents_only_equal_ones_meet() -> None:
    assert count_meetings("Thanks  a lot!", "Thanks a lot! ") == BUCKETS
    assert count_meetings("Thanks a lot!", "Thanks a lot") == 0


def test_a_bucket_is_sorted_and_has_each_document_once() -> None:
    buckets = read_buckets([make_text(seed, 20 + seed) for seed in range(50)])
    assert len(buckets) == BUCKETS
    for bucket in buckets:
        assert (np.sort(bucket, order=RECORD.names) == bucket).all()
        assert sorted(bucket["document"].tolist()) == list(range(50))
