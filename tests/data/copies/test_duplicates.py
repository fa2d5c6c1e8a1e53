"""Copies and near copies: found in both splits, the same ones every time, and nothing else is left
out.
"""

import random
from pathlib import Path

import numpy as np
import pytest

from lightlm.data.copies import near_copies
from lightlm.data.copies.duplicates import DigestTable, digest_of, fold_white_space
from lightlm.data.copies.leaks import NearCopies
from lightlm.data.copies.near_copies import find_near_copies

VOCABULARY = [f"word{number}" for number in range(2000)]


def write(folder: Path, **splits: list[str]) -> Path:
    for split, documents in splits.items():
        encoded = [document.encode() for document in documents]
        (folder / f"{split}.text").write_bytes(b"".join(encoded))
        lengths = np.array([len(document) for document in encoded], dtype="<u8")
        (folder / f"{split}.lengths").write_bytes(lengths.tobytes())
    return folder


def make_text(draw: random.Random, lines: int = 6, words: int = 9) -> str:
    return "".join(
        " ".join(draw.choice(VOCABULARY) for _ in range(words)) + "\n" for _ in range(lines)
    )


def find_kept(found: NearCopies, **splits: list[str]) -> dict[str, list[str]]:
    return {
        split: [
            text for text, is_out in zip(texts, found.left_out[split], strict=True) if not is_out
        ]
        for split, texts in splits.items()
    }


def count_accepted(texts: list[str]) -> int:
    table = DigestTable()
    for digest in (digest_of(text.encode()) for text in texts):
        if digest not in table:
            table.add(digest)
    return len(table)


def test_of_3000_posts_of_60_kinds_60_stay() -> None:
    draw = random.Random(1)
    kinds = [make_text(draw, 1, 20) for _ in range(60)]
    assert count_accepted([draw.choice(kinds) for _ in range(2940)] + kinds) == 60


def test_a_copy_with_other_white_space_is_a_copy() -> None:
    table = DigestTable()
    table.add(digest_of("Zwei Wörter.\nEnde".encode()))
    assert digest_of("  Zwei\u00a0 Wörter.\r\n\r\nEnde\n".encode()) in table
    assert digest_of(b"Zweiw") not in table


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("a b", "a b"),
        ("  a \t\r\n b" + " " * 1001 + "c\n", "a b c"),
        ("日本\u3000語\u2028x", "日本 語 x"),
        ("12 3", "12 3"),
        (" \n", ""),
        ("é\u2003—\u2009ü", "é — ü"),
    ],
)
def test_runs_of_white_space_are_one_blank(text: str, folded: str) -> None:
    assert fold_white_space(text.encode()).decode() == folded


def test_texts_that_differ_in_where_their_blanks_are_differ() -> None:
    assert digest_of(b"12 3") != digest_of(b"1 23")


def test_short_answers_are_copies_only_if_they_are_equal(tmp_path: Path) -> None:
    texts = ["Thanks!", "thanks", "Thanks a lot!", "Thanks a lot.", "No."]
    assert count_accepted(texts) == len(texts)
    found = find_near_copies(write(tmp_path, validation=["Thanks", "ok"], train=texts))
    assert not found.left_out["train"].any() and not found.left_out["validation"].any()


def test_a_table_of_digests_finds_what_was_added_and_nothing_else_and_costs_under_24_bytes_each() -> (
    None
):
    draw = random.Random(2)
    digests = [draw.randbytes(32) for _ in range(120_000)]
    table = DigestTable()
    for digest in digests[:60_000]:
        table.add(digest)

    assert all(digest in table for digest in digests[:60_000])
    assert not any(digest in table for digest in digests[60_000:])
    assert table.num_bytes < 24 * len(table)


def test_a_table_of_digests_takes_keys_that_all_want_the_same_slot() -> None:
    digests = [bytes(8) + (2**64 - 1 - number).to_bytes(8, "big") for number in range(3_000)]
    table = DigestTable()
    for digest in digests:
        table.add(digest)
    assert all(digest in table for digest in digests)


def test_no_held_out_text_has_a_near_copy_in_training_if_five_copies_differ_in_their_last_line(
    tmp_path: Path,
) -> None:
    draw = random.Random(3)
    texts = []
    for kind in range(600):
        start = make_text(draw, 5)
        texts += [(kind, start + make_text(draw, 1)) for _ in range(5)]

    draw.shuffle(texts)
    kinds = {text: kind for kind, text in texts}
    splits = {
        "validation": [text for _, text in texts[:300]],
        "train": [text for _, text in texts[300:]],
    }

    found = find_near_copies(write(tmp_path, **splits))
    kept = find_kept(found, **splits)

    held_out, trained = ([kinds[text] for text in kept[split]] for split in ("validation", "train"))
    assert not set(held_out) & set(trained)
    assert set(held_out) | set(trained) == set(range(600))
    assert len(held_out) == len(set(held_out))
    assert len(trained) <= 1.01 * len(set(trained))


STORY = (
    "On the 3rd of March 1847 Miss Eliza Harrow left the house at Dorn for the last time. Her "
    "trunk, two hat boxes "
    "and a parrot had gone ahead by the carrier; nobody but the cook came to the gate. It rained, "
    "as it had rained on "
    "the day when she arrived, and the road to the station was a brook."
)


@pytest.mark.parametrize(
    "copy",
    [
        STORY.upper(),
        STORY.replace(" ", "\n  "),
        STORY.replace(",", " –").replace(".", "!"),
        STORY.replace("3rd of March 1847", "12th of June 1901"),
        STORY.replace("Eliza Harrow", "Jane Smith"),
        STORY + " (Read more)",
        "Reposted by admin: " + STORY,
    ],
)
def test_a_copy_with_another_case_date_name_or_ending_is_a_leak_and_a_near_copy(
    tmp_path: Path, copy: str
) -> None:
    draw = random.Random(4)
    others = [make_text(draw) for _ in range(20)]

    leak = find_near_copies(
        write(tmp_path, validation=[STORY, *others[:5]], train=[*others[5:], copy])
    )
    assert np.flatnonzero(leak.left_out["train"]).tolist() == [15]
    twice = find_near_copies(
        write(tmp_path, validation=others[:5], train=[STORY, *others[5:], copy])
    )

    assert np.flatnonzero(twice.left_out["train"]).tolist() == [16]


def test_near_copies_are_found_in_scripts_without_blanks_and_beyond_ascii(tmp_path: Path) -> None:
    draw = random.Random(5)
    chinese = ["".join(chr(draw.randrange(0x4E00, 0x5E00)) for _ in range(120)) for _ in range(30)]
    russian = [
        " ".join("".join(chr(draw.randrange(0x430, 0x450)) for _ in range(6)) for _ in range(60))
        for _ in range(30)
    ]

    texts = chinese + russian
    copies = [text[:50] + "。" + text[51:] for text in chinese] + [text.upper() for text in russian]

    found = find_near_copies(write(tmp_path, validation=["x"], train=texts + copies))

    assert np.flatnonzero(found.left_out["train"]).tolist() == list(range(60, 120))


def test_500_different_texts_all_stay(tmp_path: Path) -> None:
    draw = random.Random(6)
    texts = [make_text(draw, draw.randrange(1, 40)) for _ in range(500)]
    found = find_near_copies(write(tmp_path, validation=texts[:50], train=texts[50:]))
    assert not found.left_out["train"].any() and not found.left_out["validation"].any()


def test_articles_with_the_same_headers_and_forms_with_other_entries_stay(tmp_path: Path) -> None:
    draw = random.Random(7)
    articles = [
        f" = {make_text(draw, 1, 2).strip()} = \n = = Early life = = \n{make_text(draw, 2)} = = "
        "Career = = \n"
        f"{make_text(draw, 2)} = = References = = \n External links and further reading on this "
        "subject \n"
        for _ in range(400)
    ]

    preamble = (
        "Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request. "
    )
    chats = [
        f"{preamble}\nInstruction: {make_text(draw, 1, 6)}Response: {make_text(draw, 1, 12)}"
        for _ in range(400)
    ]

    texts = [text for pair in zip(articles, chats, strict=True) for text in pair]

    found = find_near_copies(write(tmp_path, validation=texts[:80], train=texts[80:]))

    assert not found.left_out["train"].any() and not found.left_out["validation"].any()


def test_a_held_out_post_that_a_training_document_quotes_is_a_leak(tmp_path: Path) -> None:
    draw = random.Random(8)
    posts = [make_text(draw, 4) for _ in range(20)]
    training = [make_text(draw, 4) for _ in range(200)]
    training[50] = make_text(draw, 4) + posts[3] + make_text(draw, 4)

    found = find_near_copies(write(tmp_path, validation=posts, train=training))

    assert np.flatnonzero(found.left_out["train"]).tolist() == [50]


def test_a_file_that_repeats_all_held_out_text_goes_and_a_book_that_quotes_one_post_stays(
    tmp_path: Path,
) -> None:
    draw = random.Random(9)
    posts = [make_text(draw, 4) for _ in range(40)]
    book = make_text(draw, 2000) + posts[7] + make_text(draw, 2000)
    training = [make_text(draw, 4) for _ in range(400)]

    found = find_near_copies(write(tmp_path, validation=posts, train=["".join(posts), *training]))
    assert np.flatnonzero(found.left_out["train"]).tolist() == [0]
    found = find_near_copies(write(tmp_path, validation=posts, train=[*training, book]))
    assert np.flatnonzero(found.left_out["validation"]).tolist() == [7]
    assert not found.left_out["train"].any()


def test_of_near_copies_in_a_split_the_first_stays_whatever_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(10)
    starts = [make_text(draw, 7) for _ in range(40)]
    texts = [start + make_text(draw, 1) for _ in range(20) for start in starts]
    write(tmp_path, validation=[make_text(draw) for _ in range(10)], train=texts)

    results = []
    for workers in (1, 3):
        monkeypatch.setattr(near_copies, "LEAST_BYTES_PER_CHILD", 1)
        monkeypatch.setattr(near_copies, "count_cores", lambda workers=workers: workers)
        results.append(find_near_copies(tmp_path).left_out["train"])

    assert np.array_equal(*results)
    assert not results[0][:40].any() and results[0][40:].all()


def test_long_documents_are_compared_by_a_sample_of_their_words(tmp_path: Path) -> None:
    draw = random.Random(11)
    book = make_text(draw, 5000)
    other = make_text(draw, 5000)
    found = find_near_copies(
        write(
            tmp_path,
            validation=[make_text(draw)],
            train=[book, other, "Second edition. " + book[: -len(book) // 20]],
        )
    )
    assert found.left_out["train"].tolist() == [False, False, True]


def test_it_says_so_if_the_time_ended_and_still_leaves_out_every_leak(tmp_path: Path) -> None:
    draw = random.Random(12)
    texts = [make_text(draw) for _ in range(30)]
    found = find_near_copies(
        write(tmp_path, validation=texts[:5], train=[*texts, *texts]), max_seconds=0.0
    )

    assert np.flatnonzero(found.left_out["train"]).tolist() == [0, 1, 2, 3, 4, 30, 31, 32, 33, 34]
    assert found.not_looked_at and "time" in found.not_looked_at


def test_it_says_how_many_documents_were_too_many_to_be_compared_with_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_copies, "MOST_SKETCHES", 20)
    draw = random.Random(13)
    texts = [make_text(draw) for _ in range(30)]
    found = find_near_copies(write(tmp_path, validation=[make_text(draw)], train=texts))
    assert found.not_looked_at and found.not_looked_at.startswith(
        "10 training documents after the first 20 "
    )


def test_empty_splits_and_documents_without_words_have_no_near_copies(tmp_path: Path) -> None:
    found = find_near_copies(write(tmp_path, validation=[], train=["...", "\0\0", "!?"]))
    assert not found.left_out["train"].any() and len(found.left_out["validation"]) == 0


def test_short_posts_that_differ_in_case_and_punctuation_stand_on_one_side_once(
    tmp_path: Path,
) -> None:
    posts = [f"number {number} is what I like best" for number in range(300)]
    train = (
        [f"Number {number}: is what I like BEST!" for number in range(300)]
        + ["what I like"]
        + ["Thanks!", "thanks"]
    )

    found = find_near_copies(write(tmp_path, validation=posts[:20], train=train))
    assert found.left_out["validation"].sum() == 0
    assert found.left_out["train"].tolist() == [True] * 20 + [False] * (len(train) - 20)
    found = find_near_copies(
        write(tmp_path, validation=["a held out text of its own"], train=[*train, *posts])
    )

    assert found.left_out["train"].tolist() == [False] * len(train) + [True] * len(posts)
