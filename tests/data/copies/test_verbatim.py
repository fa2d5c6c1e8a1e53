"""The longest copy, against a search that looks at every piece."""

import random

from lightlm.data.copies.verbatim import WINDOW_BYTES, find_longest_copy, hash_windows


def draw(seed: int, size: int) -> bytes:
    """Return letters by chance."""
    return bytes(random.Random(seed).choices(b"abcdefgh ", k=size))


def test_the_longest_piece_that_a_document_holds_is_found() -> None:
    document = draw(1, 5000)
    texts = [b"x" + document[100:160] + b"y", b"z" + document[3000:3075] + draw(2, 50)]
    found = find_longest_copy(texts, [draw(3, 500), document], 10**6)
    assert found == (document[3000:3075], 5500)


def test_windows_of_two_texts_that_follow_each_other_are_not_one_copy() -> None:
    document = draw(4, 400)
    texts = [document[100:160], document[121:190]]
    assert find_longest_copy(texts, [document], 10**6).text == document[121:190]


def test_a_long_run_that_repeats_itself_costs_no_more_than_the_text() -> None:
    text = b"a heading" + b"-" * 79
    found = find_longest_copy([text], [b"-" * 300_000, draw(12, 500)], 10**6)
    assert found.text == b"-" * 79


def test_shorter_pieces_and_texts_are_no_copies() -> None:
    document = draw(5, 400)
    texts = [document[: WINDOW_BYTES - 1] + b"!", b"", b"ab"]
    assert find_longest_copy(texts, [document, b"", b"ab"], 10**6).text == b""


def test_documents_beyond_the_limit_are_not_read() -> None:
    documents = [draw(6, 300), draw(7, 300), draw(8, 300)]
    found = find_longest_copy([documents[2]], documents, 400)
    assert found == (b"", 600)


def test_a_window_has_one_hash_wherever_it_stands() -> None:
    window = draw(9, WINDOW_BYTES)
    (alone,) = hash_windows(window)
    assert hash_windows(draw(10, 1000) + window + draw(11, 77))[1000] == alone
