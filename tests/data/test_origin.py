"""What a model is named after, and which texts are one text."""

import pytest

from lightlm.data.origin import (
    describe_origin,
    find_hub_id,
    format_origin,
    is_same_text,
    list_names,
    list_overrides,
    read_logged_params,
    read_origin,
)
from lightlm.params import load_params


@pytest.mark.parametrize(
    ("source", "config", "name"),
    [
        ("python-docs", None, "python-docs"),
        ("/home/me/notes", None, "notes"),
        ("/home/me/novel.txt", None, "novel"),
        ("/home/me/reviews.jsonl.gz", None, "reviews"),
        ("/home/me/wiki.v2.md", None, "wiki.v2"),
        ("/home/me/tinyshakespeare/input.txt", None, "tinyshakespeare"),
        ("/home/me/poems/data/train-00000-of-00004.parquet", None, "poems"),
        ("/home/me/src/**/*.py", None, "src"),
        ("/home/me/project/docs/*.md", None, "project"),
        ("/home/me/data", None, "data"),
        ("/home/me/input.txt", None, "input"),
        ("/home/me/caf\u00e9 au lait.txt", None, "cafe-au-lait"),
        ("/home/me/a:b.txt", None, "a-b"),
        ("/home/me/2018", None, "text-2018"),
        ("/home/me/champion.txt", None, "text-champion"),
        ("Salesforce/wikitext", "wikitext-2-v1", "wikitext-2-v1"),
        ("wikimedia/wikipedia", "20231101.en", "wikipedia-20231101.en"),
        ("roneneldan/TinyStories", None, "TinyStories"),
        ("stanfordnlp/imdb", "plain_text", "imdb"),
        ("owner/set", "2018", "set-2018"),
    ],
)
def test_a_model_is_named_after_its_data_set(source: str, config: str | None, name: str) -> None:
    assert list_names({"source": source, "config": config})[0] == name


@pytest.mark.parametrize(
    "source",
    [
        "/home/me/\u0437\u0430\u043c\u0435\u0442\u043a\u0438",
        "/",
        "/home/me/" + "n" * 300,
        "/x/-.txt",
        "o/" + "n" * 90,
    ],
)
def test_every_name_that_is_made_can_be_a_registered_models(source: str) -> None:
    for name in list_names({"source": source, "config": None}):
        assert load_params(overrides={"tracking.model_name": name}).tracking.model_name == name
        assert len(name) <= 60
        assert not name.isdigit()


def test_two_texts_of_one_name_have_other_names_that_tell_them_apart() -> None:
    one, other = (
        list_names({"source": f"/home/{folder}/notes"}) for folder in ("a/work", "a/club")
    )
    assert one[:2] == ["notes", "work-notes"]
    assert other[:2] == ["notes", "club-notes"]
    assert len({*one, *other}) == 5


def test_an_origin_is_an_absolute_path_a_hub_id_or_the_text_that_was_learnt_instead(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.csv").write_text("text\none\n")
    chosen = load_params(dataset="notes.csv", overrides={"dataset.text_column": "text"}).dataset
    origin = describe_origin(chosen)
    assert origin["source"] == str(tmp_path / "notes.csv")
    assert format_origin(origin) == f"{tmp_path / 'notes.csv'} (column text)"
    assert not {"offline", "hub_timeout_seconds"} & origin.keys()
    assert describe_origin(load_params().dataset)["source"] == "Salesforce/wikitext"
    assert format_origin(describe_origin(load_params().dataset, "python-docs")) == "python-docs"
    assert describe_origin(load_params(dataset="*.md").dataset)["source"] == str(tmp_path / "*.md")
    assert load_params(overrides=list_overrides(origin)).dataset == chosen.model_copy(
        update={"source": origin["source"], "offline": None}
    )


def test_a_text_is_the_same_whatever_its_limits_and_another_by_source_configuration_or_column() -> (
    None
):
    origin = describe_origin(
        load_params(dataset="/data/notes.csv", overrides={"dataset.text_column": "body"}).dataset
    )

    for same in (
        {"max_bytes": 9999},
        {"validation_fraction": 0.2},
        {"text_column": None},
        {"encoding": "cp1251"},
    ):
        assert is_same_text(origin, origin | same)

    for other in (
        {"source": "/data/mail.csv"},
        {"config": "en"},
        {"text_column": "title"},
        {"train_split": "dev"},
    ):
        assert not is_same_text(origin, origin | other)


def test_what_is_recorded_as_params_or_as_something_else_is_read_or_left() -> None:
    logged = {
        "dataset.source": "notes",
        "dataset.config": "None",
        "dataset.max_bytes": "5000",
        "budget.hours": "1",
    }

    logged |= {
        "dataset.validation_fraction": "0.05",
        "dataset.text_column": "2018",
        "dataset.offline": "fallback",
    }
    assert read_logged_params(logged) == {
        "source": "notes", "config": None, "max_bytes": 5000, "validation_fraction": 0.05, "text_column": "2018"
    }  # fmt: skip

    assert read_logged_params({"dataset.config": "None"}) is None
    for broken in (None, "", "{", "[]", '{"source": 3}'):
        assert read_origin(broken) is None


def test_the_hub_has_the_data_sets_that_are_no_path_and_not_built_in() -> None:
    assert find_hub_id({"source": "owner/name"}) == "owner/name"
    assert find_hub_id({"source": "wikitext"}) == "wikitext"
    for source in ("/home/me/notes", "python-docs", ""):
        assert find_hub_id({"source": source}) is None
    assert find_hub_id(None) is None


def test_an_origin_names_the_texts_that_go_with_it_and_stays_the_first_text() -> None:
    others = {"dataset.others": ["/notes/letters:0.3", "Salesforce/wikitext"]}
    mixed = describe_origin(load_params(dataset="python-docs", overrides=others).dataset)
    alone = describe_origin(load_params(dataset="python-docs").dataset)
    assert [one["source"] for one in mixed["others"]] == ["/notes/letters", "Salesforce/wikitext"]
    assert "others" not in alone
    assert is_same_text(mixed, alone)
    assert list_names(mixed) == list_names(alone)
    assert format_origin(mixed) == (
        "python-docs with /notes/letters: 0.3, Salesforce/wikitext (wikitext-2-v1): auto"
    )
    again = load_params(overrides=list_overrides(mixed)).dataset
    assert [one.weight for one in again.others] == [0.3, "auto"]
