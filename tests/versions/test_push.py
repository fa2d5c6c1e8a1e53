"""A version on the Hub: what is uploaded, and which mistakes are explained before or after."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, constants
from safetensors.numpy import load_file

from lightlm.errors import HubError, InputError
from lightlm.tracking.registry import ModelVersion
from lightlm.versions.push import (
    PushRequest,
    check_access,
    check_repository,
    check_request,
    describe_older,
    explain,
    list_files,
    open_hub,
)
from tests.command_line import FIRST_VERSION, Trained
from tests.data.hub_server import COMMIT, ModelHub, Repository, serve_models


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    with serve_models(ModelHub()) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield served


@pytest.fixture
def api(hub: ModelHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token="hf_writer")


def make_version(**tags: str) -> ModelVersion:
    return ModelVersion(
        name="notes", version="3", run_id="", aliases=(), tags=tags, created_at=datetime.now(UTC)
    )


def test_a_version_is_uploaded_privately_with_a_card_that_the_hub_accepts(
    trained: Trained, hub: ModelHub, tmp_path: Path
) -> None:
    words = ("push", "--to", "team/notes", "--license", "mit", "--gguf", "q8_0", *FIRST_VERSION)
    done = trained.lightlm(*words, "--json").json
    repository = hub.repositories["team/notes"]
    assert (done["commit"], done["is_private"], done["is_new"]) == (COMMIT, True, True)
    assert done["url"] == f"{hub.endpoint}/team/notes"
    assert repository.is_private
    (message,) = repository.messages
    assert message.startswith("Upload ")

    gguf_name = f"{done['model_name']}-Q8_0.gguf"
    assert {"config.json", "model.safetensors", "tokenizer.json", gguf_name} <= {*repository.files}
    assert "manifest.json" not in repository.files
    (tmp_path / "model.safetensors").write_bytes(repository.files["model.safetensors"])
    assert "model.embed_tokens.weight" in load_file(tmp_path / "model.safetensors")

    card = repository.files["README.md"].decode()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "mit"
    (metric,) = header["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(
        trained.summary["score"].get("network_bits_per_byte")
        or trained.summary["score"]["bits_per_byte"],
        abs=1e-4,
    )
    for command in ("vllm serve team/notes", "ollama run hf.co/team/notes", '"team/notes"'):
        assert command in card

    again = trained.lightlm(*words)
    assert again.code == 2
    assert "is on the Hub already; give --update" in again.err
    assert len(repository.messages) == 1


def test_the_license_of_a_base_holds_and_a_wrong_request_is_refused() -> None:
    based = make_version(base_model="Qwen/Qwen3-0.6B", base_license="apache-2.0")
    assert check_request("jane/notes", None, based) == "apache-2.0"
    assert check_request("jane/notes", "mit", make_version()) == "mit"
    with pytest.raises(InputError, match=r"give --license apache-2.0, mit,"):
        check_request("jane/notes", None, make_version())
    for repository in ("notes", "jane/notes/more", "jane/"):
        with pytest.raises(InputError, match="give OWNER/NAME"):
            check_request(repository, "mit", based)
    with pytest.raises(InputError, match="--license is 'My own'"):
        check_request("jane/notes", "My own", based)


def test_a_missing_token_and_offline_mode_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match="`hf auth login` or set HF_TOKEN"):
        open_hub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        open_hub()


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        ("hf_stranger", "jane/notes", "does not know the token"),
        ("hf_reader", "jane/notes", "of jane can only read"),
        ("hf_writer", "joe/notes", "who is not in joe; give --to with one of .*jane, team"),
        ("hf_writer", "readers/notes", "may only read in readers"),
    ],
)
def test_a_token_that_cannot_write_is_refused_before_anything_is_exported(
    hub: ModelHub, token: str, repository: str, message: str
) -> None:
    hub.tokens["hf_reader"] = "read"
    with pytest.raises(InputError, match=message):
        check_access(HfApi(endpoint=hub.endpoint, token=token), repository)
    assert hub.repositories == {}


def test_a_repository_that_an_upload_broke_off_in_counts_as_empty(
    hub: ModelHub, api: HfApi
) -> None:
    assert list_files(api, "jane/notes") is None
    hub.repositories["jane/notes"] = Repository(True, {".gitattributes": b""})
    assert list_files(api, "jane/notes") == []
    hub.repositories["jane/notes"].files["config.json"] = b"{}"
    assert list_files(api, "jane/notes") == ["config.json"]


def test_nothing_private_goes_into_an_empty_repository_that_everybody_sees(
    hub: ModelHub, api: HfApi
) -> None:
    private = PushRequest("jane/notes", "mit")
    assert check_repository(api, private) is None
    hub.repositories["jane/notes"] = Repository(False, {".gitattributes": b""})
    with pytest.raises(InputError, match="everybody sees it; make it private there, or"):
        check_repository(api, private)
    assert check_repository(api, PushRequest("jane/notes", "mit", is_private=False)) == []
    assert check_repository(api, PushRequest("jane/notes", "mit", may_update=True)) == []
    hub.repositories["jane/notes"].is_private = True
    assert check_repository(api, private) == []


def test_weights_of_an_earlier_upload_that_stay_are_named() -> None:
    files = ["README.md", "model.safetensors", "notes-Q4_0.gguf"]
    assert describe_older([*files, "config.json"], files) == ""
    assert "stay in the repository: notes-Q8_0.gguf; delete" in describe_older(
        [*files, "notes-Q8_0.gguf"], files
    )


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (403, InputError, r"may not write to jane/notes; give it write access to jane"),
        (409, HubError, r"changed by somebody else"),
        (413, HubError, r"refused the upload \(413"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    hub: ModelHub, api: HfApi, status: int, kind: type[Exception], message: str
) -> None:
    hub.refuses["/api/repos/create"] = status
    with pytest.raises(kind, match=message), explain("jane/notes"):
        api.create_repo("jane/notes")


def test_a_card_that_the_hub_refuses_is_explained(hub: ModelHub, api: HfApi) -> None:
    hub.repositories["jane/notes"] = Repository(True)
    card = b"---\nlicense: mine\n---\n"
    with pytest.raises(InputError, match=r'refused the card .*"license" must be one of'):  # noqa: SIM117
        with explain("jane/notes"):
            api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="jane/notes")
    assert hub.repositories["jane/notes"].files == {}


def test_a_hub_that_does_not_answer_is_said_to_be_out_of_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    api = HfApi(endpoint=f"http://127.0.0.1:{port}", token="hf_writer")
    with pytest.raises(HubError, match=r"out of reach .*HF_ENDPOINT"):
        check_access(api, "jane/notes")
