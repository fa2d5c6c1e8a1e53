"""The general text: several kinds of documents, and small enough to be scored within seconds."""

from lightlm.evaluation.general import GENERAL_TEXT


def test_it_is_small_and_has_whole_documents() -> None:
    assert len(GENERAL_TEXT) >= 6
    assert 2_000 < sum(len(document.encode()) for document in GENERAL_TEXT) < 3_000
    assert all(document.isascii() and len(document) > 200 for document in GENERAL_TEXT)
