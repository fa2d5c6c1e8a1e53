"""A version's tags: few for a person, all for the code, of old versions and new ones alike."""

import json

import pytest

from lightlm.tracking.tags import (
    LEARNED_TAG,
    MOST_CHARACTERS,
    RECORD_TAG,
    is_other_text,
    pack_tags,
    unpack_tags,
)


def tags(source: str = "/a/notes", digest: str = "1", **values: object) -> dict[str, str]:
    origin = {
        "source": source,
        "config": None,
        "train_split": "train",
        "text_column": None,
    } | values
    return {"dataset": "notes", "source_digest": digest, "lightlm.dataset": json.dumps(origin)}


def test_packed_tags_come_back_and_a_person_sees_eight_at_most() -> None:
    given = tags() | {
        "bits_per_byte": "1.5",
        "hours": "0.1",
        "num_parameters": "9",
        "started_from": "scratch",
    }

    given |= {
        "lightlm.promotion": "first",
        "lightlm.manifest_sha256": "ab",
        "seen_bytes": "7",
        "git_commit": "c0",
    }

    packed = pack_tags(given)
    assert len(packed) == 8
    assert unpack_tags(packed) == given


def test_tags_of_versions_before_the_record_are_read_as_they_are() -> None:
    old = {"lightlm.manifest_sha256": "ab", "seen_bytes": "7"}
    assert unpack_tags(old) == old
    assert unpack_tags(old | {RECORD_TAG: "torn {"}) == old
    assert unpack_tags(old | {RECORD_TAG: "[1]"}) == old


def test_a_record_fits_into_a_tag_and_keeps_the_newest_of_what_was_learnt() -> None:
    learned = [f"{number:016x}" for number in range(1000)]
    packed = pack_tags({LEARNED_TAG: ",".join(learned), "seen_bytes": "7"})
    assert len(packed[RECORD_TAG]) <= MOST_CHARACTERS
    kept = unpack_tags(packed)[LEARNED_TAG].split(",")
    assert kept == learned[-len(kept) :]
    assert len(kept) > 100


@pytest.mark.parametrize(
    ("champion", "challenger", "is_other"),
    [
        (tags(), tags(digest="2"), False),  # it has grown
        (tags(), tags("/b/notes", digest="2"), True),
        (tags(), tags("/b/notes"), False),  # moved: the same content
        (tags(text_column="title"), tags(text_column="body"), True),
        ({"dataset": "notes"}, tags(), False),  # versions before origins were recorded
        ({"dataset": "mail"}, tags(), True),
        ({"dataset": "mail", "source_digest": "1"}, tags(), False),
        ({}, tags(), False),
    ],
)
def test_texts_are_told_apart_by_their_origin_else_by_content_or_name(
    champion: dict[str, str], challenger: dict[str, str], is_other: bool
) -> None:
    assert is_other_text(champion, challenger) == is_other
