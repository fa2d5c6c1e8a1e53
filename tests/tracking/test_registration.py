"""Tests of registration: one version a run, its aliases by a rule, and a sentence that says why."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lightlm.store.commit import open_commit
from lightlm.tracking.recorder import RegistrationRequest
from lightlm.tracking.registration import describe_signature, judge, promote, register
from lightlm.tracking.registry import MANIFEST_TAG, PROMOTION_TAG, ModelVersion, open_client, resolve
from lightlm.tracking.shipper import find_experiment, pin_requirements


def version(number: str, **tags: str) -> ModelVersion:
    return ModelVersion(name="lightlm", version=number, run_id="r", aliases=(), tags=tags, created_at=datetime.now(UTC))


@pytest.mark.parametrize(
    ("champion", "policy", "bits", "text", "moves", "words"),
    [
        (None, "better", 2.0, "t", True, "first champion"),
        (None, "never", 2.0, "t", False, "never"),
        (version("1", bits_per_byte="1.5", text_sha256="t"), "better", 1.4, "t", True, "1.4000 bits per byte"),
        (version("1", bits_per_byte="1.5", text_sha256="t"), "better", 1.6, "t", False, "version 1 stays champion"),
        (version("1", bits_per_byte="1.5", text_sha256="u"), "better", 9.9, "t", True, "another text"),
        (version("1", bits_per_byte="1.5", text_sha256="t"), "always", 9.9, "t", True, "always"),
        (version("1", bits_per_byte="1.5", text_sha256="t"), "never", 0.1, "t", False, "never"),
        (version("1", bits_per_byte="1.50000", text_sha256="t"), "better", 1.5, "t", True, "version 2 is champion"),
        (version("1", bits_per_byte="1.50000", text_sha256="t"), "better", 1.500004, "t", True, "on the same text"),
        (version("1", bits_per_byte="nan", text_sha256="t"), "better", 3.0, "t", True, "version 2 is champion"),
        (version("1", bits_per_byte="?", text_sha256="t"), "better", 3.0, "t", True, "version 2 is champion"),
        (version("1", text_sha256="t"), "better", 3.0, "t", True, "version 2 is champion"),
        (version("1", bits_per_byte="1.5", text_sha256="t"), "better", float("nan"), "t", False, "stays champion"),
    ],
)
def test_the_champion_changes_by_a_rule_with_a_reason(
    champion: ModelVersion | None, policy: str, bits: float, text: str, moves: bool, words: str
) -> None:
    moved, reason = judge(champion, "2", policy, bits, text)
    assert moved == moves
    assert words in reason


@pytest.fixture
def make_run(home: Path, database: Path) -> Callable[[], str]:
    def create() -> str:
        client = open_client(home)
        return client.create_run(find_experiment(client, "lightlm", home)).info.run_id

    return create


def test_registering_twice_is_one_version_with_the_same_reason(
    home: Path, make_run: Callable[[], str], request_for: Callable[..., RegistrationRequest], model_folder: Path
) -> None:
    client, run_id = open_client(home), make_run()
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
    client, run_id = open_client(home), make_run()
    version = register(client, run_id, request_for(), pin_requirements())
    for alias in ("champion", "challenger"):
        client.delete_registered_model_alias("lightlm", alias)
    client.delete_model_version_tag("lightlm", "1", MANIFEST_TAG)
    assert register(client, run_id, request_for(), pin_requirements()) == version


def test_the_former_champion_is_called_previous(
    home: Path, make_run: Callable[[], str], request_for: Callable[..., RegistrationRequest]
) -> None:
    client = open_client(home)
    for bits in (1.5, 1.4, 1.45):
        register(client, make_run(), request_for(bits), pin_requirements())
    assert [resolve(alias).version for alias in ("champion", "previous", "challenger")] == ["2", "1", "3"]
    version = resolve("3")
    reason = promote(client, version, "always", 1.45, "a" * 64)
    assert "tracking.promote is always" in reason
    assert [resolve(alias).version for alias in ("champion", "previous", "challenger")] == ["3", "2", "3"]
    promote(client, version, "always", 1.45, "a" * 64)
    assert resolve("previous").version == "2", "a second time changes nothing"


def test_the_signature_has_every_sampling_param_with_its_default() -> None:
    signature = describe_signature({"max_new_tokens": 8, "temperature": 0.5})
    assert signature.params is not None
    defaults = {param["name"]: (param["type"], param["default"]) for param in signature.params.to_dict()}
    assert defaults == {"max_new_tokens": ("long", 8), "temperature": ("double", 0.5), "seed": ("long", -1)}


def test_requirements_name_releases_that_can_be_installed() -> None:
    assert all("+" not in one and "==" in one for one in pin_requirements())
