"""The longest copy, against a search that looks at every piece."""

from random import Random

import numpy as np
import pytest

from lightlm.data.copies import verbatim
from lightlm.data.copies.verbatim import WINDOW_BYTES, Hashed, find_longest_copy


def draw(seed: int, size: int) -> bytes:
    """Return letters by chance."""
    return bytes(Random(seed).choices(b"abcdefgh ", k=size))


def test_the_longest_piece_that_a_document_holds_is_found() -> None:
    document = draw(1, 5000)
    texts = [b"x" + document[100:160] + b"y", b"z" + document[3000:3075] + draw(2, 50)]
    found = find_longest_copy(texts, [draw(3, 500), document], 10**6)
    assert found == (document[3000:3075], 5500)


def test_windows_of_two_texts_that_follow_each_other_are_not_one_copy() -> None:
    document = draw(4, 400)
    texts = [document[100:160], document[121:190]]
    assert find_longest_copy(texts, [document], 10**6).text == document[121:190]


def test_what_follows_a_long_run_is_found_as_well() -> None:
    text = b"a heading" + b"-" * 79 + draw(13, 300)
    found = find_longest_copy([text], [b"-" * 300_000 + text[-300:], draw(12, 500)], 10**6)
    assert found.text == text[-379:]
    assert find_longest_copy([text], [b"-" * 300_000], 10**6).text == b"-" * 79


def test_a_copy_across_two_pieces_of_a_document_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbatim, "PIECE_BYTES", 1000)
    document = draw(14, 2000)
    text = document[950:1150]
    assert find_longest_copy([text], [document], 10**6).text == text


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_is_that_of_a_search_at_every_place(seed: int) -> None:
    random = Random(seed)
    pieces = [bytes(random.choices(b"ab", k=random.randint(20, 60))) for _ in range(4)]
    texts = [b"".join(random.choices(pieces, k=3)) for _ in range(2)]
    document = b"".join(random.choices(pieces, k=6))
    longest = max(
        (
            document[start:end]
            for start in range(len(document))
            for end in range(start + WINDOW_BYTES, len(document) + 1)
            if any(document[start:end] in text for text in texts)
        ),
        key=len,
        default=b"",
    )
    assert len(find_longest_copy(texts, [document], 10**6).text) == len(longest)


def test_shorter_pieces_and_texts_are_no_copies() -> None:
    document = draw(5, 400)
    texts = [document[: WINDOW_BYTES - 1] + b"!", b"", b"ab"]
    assert find_longest_copy(texts, [document, b"", b"ab"], 10**6).text == b""


def test_documents_beyond_the_limit_are_not_read() -> None:
    documents = [draw(6, 300), draw(7, 300), draw(8, 300)]
    found = find_longest_copy([documents[2]], documents, 400)
    assert found == (b"", 400)


def test_a_window_has_one_hash_wherever_it_stands() -> None:
    window = draw(9, WINDOW_BYTES)
    (alone,) = Hashed(window).hash_at(np.array([0]), WINDOW_BYTES)
    longer = Hashed(draw(10, 1000) + window + draw(11, 77))
    assert longer.hash_at(np.array([1000]), WINDOW_BYTES)[0] == alone
