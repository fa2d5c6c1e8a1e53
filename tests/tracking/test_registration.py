"""Tests of registration: one version a run, its aliases by a rule, and a sentence that says why."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lightlm.errors import ModelVersionError
from lightlm.evaluation.comparison import Comparison
from lightlm.store.commit import open_commit
from lightlm.tracking.catalog import resolve
from lightlm.tracking.mlflow_records import find_experiment
from lightlm.tracking.record import RegistrationRequest
from lightlm.tracking.registration import (
    choose_champion,
    describe_signature,
    judge,
    promote,
    register,
)
from lightlm.tracking.registry import PROMOTION_TAG, ModelVersion, open_client
from lightlm.tracking.shipper import pin_requirements
from lightlm.tracking.tags import MANIFEST_TAG, RECORD_TAG
from tests.tracking.conftest import compared


def version(number: str, **tags: str) -> ModelVersion:
    return ModelVersion(
        name="lightlm",
        version=number,
        run_id="r",
        aliases=(),
        tags=tags,
        created_at=datetime.now(UTC),
    )


OTHER = version("1", **{PROMOTION_TAG: "because"})


@pytest.mark.parametrize(
    ("champion", "policy", "comparison", "moves", "words"),
    [
        (None, "better", None, True, "first champion"),
        (None, "never", None, False, "never"),
        (OTHER, "better", compared("1", 1.0, 0.9), True, "version 2 is champion instead of 1: "),
        (
            OTHER,
            "better",
            compared("1", 0.9, 1.0),
            False,
            "version 1 stays champion: version 2 is not shown",
        ),
        (
            OTHER,
            "better",
            compared("1", 1.0, 1.0),
            False,
            "version 1 stays champion: version 2 is not shown",
        ),
        (OTHER, "better", compared("1", 1.0, 0.9, 5), False, "5 documents are too few to tell"),
        (OTHER, "better", compared("7", 1.0, 0.9), False, "compared with version 7"),
        (OTHER, "better", None, False, "the disk was away; `lightlm promote 2 --name lightlm`"),
        (OTHER, "always", None, True, "always"),
        (OTHER, "never", compared("1", 1.0, 0.9), False, "never"),
        (version("2", **{PROMOTION_TAG: "because"}), "better", None, True, "because"),
    ],
)
def test_the_champion_changes_by_a_rule_with_a_reason(
    champion: ModelVersion | None,
    policy: str,
    comparison: Comparison | None,
    moves: bool,
    words: str,
    request_for: Callable[..., RegistrationRequest],
) -> None:
    asked = request_for(promote=policy).model_copy(
        update={"comparison": comparison, "not_compared": "the disk was away"}
    )
    moved, reason = judge(champion, "2", asked)
    assert moved == moves
    assert words in reason


@pytest.fixture
def make_run(home: Path, database: Path) -> Callable[[], str]:
    def create() -> str:
        client = open_client(home)
        return client.create_run(find_experiment(client, "lightlm", home)).info.run_id

    return create


def test_registering_twice_is_one_version_with_the_same_reason(
    home: Path,
    make_run: Callable[[], str],
    request_for: Callable[..., RegistrationRequest],
    model_folder: Path,
) -> None:
    client = open_client(home)
    run_id = make_run()
    first = register(client, run_id, request_for(), pin_requirements())
    again = register(client, run_id, request_for(), pin_requirements())
    assert again == first
    assert first.tags[PROMOTION_TAG] == "version 1 is the first champion"
    assert first.tags[MANIFEST_TAG] == open_commit(model_folder).digest
    assert client.get_model_version("lightlm", "1").description == "**1.5** bits per byte"
    assert len(client.search_model_versions("name='lightlm'")) == 1


def test_a_registration_that_was_cut_short_is_finished(
    home: Path, make_run: Callable[[], str], request_for: Callable[..., RegistrationRequest]
) -> None:
    client = open_client(home)
    run_id = make_run()
    version = register(client, run_id, request_for(), pin_requirements())
    for alias in ("champion", "challenger"):
        client.delete_registered_model_alias("lightlm", alias)
    client.delete_model_version_tag("lightlm", "1", RECORD_TAG)
    assert register(client, run_id, request_for(), pin_requirements()) == version


def test_the_former_champion_is_called_previous(
    home: Path, make_run: Callable[[], str], request_for: Callable[..., RegistrationRequest]
) -> None:
    client = open_client(home)
    for beats in (None, "1", None):
        register(client, make_run(), request_for(beats=beats), pin_requirements())
    assert [resolve(home, alias).version for alias in ("champion", "previous", "challenger")] == [
        "2",
        "1",
        "3",
    ]

    version = resolve(home, "3")
    reason = promote(client, version, request_for(promote="always"))
    assert "tracking.promote is always" in reason
    assert [resolve(home, alias).version for alias in ("champion", "previous", "challenger")] == [
        "3",
        "2",
        "3",
    ]

    promote(client, version, request_for(promote="always"))
    assert resolve(home, "previous").version == "2", "a second time changes nothing"


def test_a_rollback_takes_the_previous_champion_and_can_be_rolled_back(
    home: Path, make_run: Callable[[], str], request_for: Callable[..., RegistrationRequest]
) -> None:
    client = open_client(home)
    for beats in (None, "1"):
        register(client, make_run(), request_for(beats=beats), pin_requirements())
    former = choose_champion(home, resolve(home, "previous"))
    assert former is not None
    assert former.version == "2"
    assert [resolve(home, alias).version for alias in ("champion", "previous")] == ["1", "2"]
    assert "by hand" in resolve(home, "champion").tags[PROMOTION_TAG]
    choose_champion(home, resolve(home, "previous"))
    assert [resolve(home, alias).version for alias in ("champion", "previous")] == ["2", "1"]
    with pytest.raises(ModelVersionError, match="version 2 of lightlm is champion already"):
        choose_champion(home, resolve(home, "2"))


def test_a_version_whose_files_are_damaged_does_not_become_champion(
    home: Path, make_run: Callable[[], str], request_for: Callable[..., RegistrationRequest]
) -> None:
    client = open_client(home)
    for beats in (None, "1"):
        register(client, make_run(), request_for(beats=beats), pin_requirements())
    client.set_model_version_tag("lightlm", "1", MANIFEST_TAG, "0" * 64)
    with pytest.raises(ModelVersionError, match="not as it was registered"):
        choose_champion(home, resolve(home, "1"))
    assert resolve(home, "champion").version == "2"


def test_the_signature_has_every_sampling_param_with_its_default() -> None:
    signature = describe_signature({"max_new_tokens": 8, "temperature": 0.5})
    assert signature.params is not None
    defaults = {
        param["name"]: (param["type"], param["default"]) for param in signature.params.to_dict()
    }
    assert defaults == {
        "max_new_tokens": ("long", 8),
        "temperature": ("double", 0.5),
        "seed": ("long", -1),
    }


def test_requirements_name_releases_that_can_be_installed() -> None:
    assert all("+" not in one and "==" in one for one in pin_requirements())
