"""All registered models by name, the newest of them, and the name that a run's model gets."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.errors import ModelVersionError
from lightlm.store.home import find_home
from lightlm.tracking.catalog import choose_name, find_origin, list_models, resolve
from lightlm.tracking.mlflow_records import find_experiment
from lightlm.tracking.record import RegistrationRequest
from lightlm.tracking.registration import judge, register
from lightlm.tracking.registry import ModelVersion, open_client
from lightlm.tracking.shipper import pin_requirements
from lightlm.tracking.tags import ORIGIN_TAG, RECORD_TAG


def origin(source: str) -> dict[str, object]:
    return {"source": source, "config": None, "text_column": None, "train_split": "train"}


@pytest.fixture
def add(
    home: Path, database: Path, request_for: Callable[..., RegistrationRequest]
) -> Callable[..., ModelVersion]:
    """Return a function that registers a version of a text under a name."""
    client = open_client(home)

    def make(name: str, source: str | None, **params: str) -> ModelVersion:
        run_id = client.create_run(find_experiment(client, "lightlm", home)).info.run_id
        for key, value in params.items():
            client.log_param(run_id, key.replace("__", "."), value)
        asked = request_for()
        tags = asked.tags | ({} if source is None else {ORIGIN_TAG: json.dumps(origin(source))})
        asked = asked.model_copy(update={"model_name": name, "tags": tags})
        return register(client, run_id, asked, pin_requirements())

    return make


def test_the_newest_model_is_the_one_that_is_meant_and_others_are_named(
    add: Callable[..., ModelVersion],
) -> None:
    assert list_models(find_home()) == []
    add("lightlm", None)
    add("notes", "/a/notes")
    add("mail", "/a/mail")
    newest = add("notes", "/a/notes")

    listed = list_models(find_home())
    assert [(model.name, model.num_versions) for model in listed] == [
        ("notes", 2),
        ("mail", 1),
        ("lightlm", 1),
    ]

    assert listed[0].champion is not None
    assert listed[0].champion.version == "1"
    assert listed[0].newest.version == "2"

    assert (resolve(find_home()).name, resolve(find_home()).version) == ("notes", "1")
    assert resolve(find_home(), "2") == resolve(find_home(), "challenger", "notes") == newest
    assert resolve(find_home(), "latest").version == "2"
    assert (
        resolve(find_home(), "1", "lightlm").uri
        == resolve(find_home(), "models:/lightlm@champion").uri
        == "models:/lightlm/1"
    )

    assert (
        resolve(find_home(), "mail").uri
        == resolve(find_home(), None, "mail").uri
        == "models:/mail/1"
    )
    with pytest.raises(
        ModelVersionError, match=r"notes has no version 7; it has 2 \(challenger\), 1 \(champion\)"
    ):
        resolve(find_home(), "7")

    with pytest.raises(
        ModelVersionError, match="there is no model poems; registered models: lightlm, mail, notes"
    ):
        resolve(find_home(), None, "poems")

    open_client(find_home()).delete_model_version("mail", "1")
    with pytest.raises(ModelVersionError, match="mail has no version left; train one"):
        resolve(find_home(), None, "mail")

    with pytest.raises(ModelVersionError, match="is no version of mail"):
        resolve(find_home(), "models:/notes/1", "mail")


def test_a_name_is_taken_by_its_text_and_another_text_gets_the_next(
    home: Path, add: Callable[..., ModelVersion]
) -> None:
    champion = add("notes", "/a/notes")
    client = open_client(home)
    names = ["notes", "b-notes", "notes-1f2e3d"]
    assert choose_name(home, client, names, origin("/a/notes"))[1] == champion
    assert choose_name(home, client, names, origin("/b/notes")) == ("b-notes", None)
    assert choose_name(home, client, ["notes"], origin("/b/notes"))[0] == "notes", (
        "a name that was given is kept"
    )

    add("b-notes", "/c/b-notes")
    assert choose_name(home, client, names, origin("/b/notes")) == ("notes-1f2e3d", None)
    add("old", None)
    assert choose_name(home, client, ["old", "b-old"], origin("/b/old"))[0] == "old", (
        "it does not say what it learned"
    )


def test_a_champion_that_learnt_another_text_stays_whatever_the_scores(
    add: Callable[..., ModelVersion], request_for: Callable[..., RegistrationRequest]
) -> None:
    champion = add("notes", "/a/notes")
    asked = request_for(beats="1").model_copy(update={"model_name": "notes"})
    assert judge(champion, "2", asked)[0]
    other = asked.model_copy(
        update={"tags": asked.tags | {ORIGIN_TAG: json.dumps(origin("/b/notes"))}}
    )

    moves, reason = judge(champion, "2", other)
    assert not moves
    for words in (
        "learned /a/notes and not /b/notes",
        "--name OTHER",
        "`lightlm promote 2 --name notes`",
    ):
        assert words in reason


def test_what_a_version_learnt_is_found_in_its_tag_or_in_its_runs_params(
    add: Callable[..., ModelVersion],
) -> None:
    assert find_origin(find_home(), add("notes", "/a/notes")) == origin("/a/notes")
    old = add(
        "lightlm",
        None,
        dataset__source="stories.jsonl",
        dataset__config="None",
        dataset__max_bytes="5000",
    )

    assert find_origin(find_home(), old) == {
        "source": "stories.jsonl",
        "config": None,
        "max_bytes": 5000,
    }
    silent = add("lightlm", None)
    assert find_origin(find_home(), silent) is None
    fallen = silent.model_copy(update={"run_id": old.run_id, "tags": {"dataset": "python-docs"}})
    assert find_origin(find_home(), fallen) == {
        "source": "python-docs",
        "config": None,
        "revision": None,
        "max_bytes": 5000,
    }


def test_a_registry_of_before_is_read_as_it_is(
    home: Path, add: Callable[..., ModelVersion]
) -> None:
    version = add("lightlm", None)
    client = open_client(home)
    client.delete_model_version_tag("lightlm", "1", RECORD_TAG)
    for key, value in version.tags.items():
        client.set_model_version_tag("lightlm", "1", key, value)
    assert resolve(home) == resolve(home, "lightlm") == version
    assert [model.name for model in list_models(home)] == ["lightlm"]
