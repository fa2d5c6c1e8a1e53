"""Tests of what counts as news in a data set."""

from datetime import UTC, datetime

import pytest

from lightlm.runs.dataset_change import compare_digests
from lightlm.tracking.registry import ModelVersion


def version(**tags: str) -> ModelVersion:
    moment = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
    return ModelVersion(
        name="lightlm", version="7", run_id="r", aliases=(), tags=tags, created_at=moment
    )


@pytest.mark.parametrize(
    ("newest", "is_changed", "words"),
    [
        (None, True, "no version is registered yet"),
        (version(), True, "version 7 does not say what it learned"),
        (version(source_digest="b"), True, "has changed since version 7: digest a, was b"),
        (
            version(source_digest="a"),
            False,
            "unchanged (digest a) since version 7 learned it on 2026-03-01 02:30 UTC",
        ),
    ],
)
def test_a_data_set_is_news_unless_the_newest_version_has_learnt_exactly_it(
    newest: ModelVersion | None, is_changed: bool, words: str
) -> None:
    news = compare_digests("stories", "a", newest)
    assert news.is_changed == is_changed
    assert words in news.reason
