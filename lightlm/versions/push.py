"""A registered version on the Hugging Face Hub: access checked, repository made, folder uploaded.

huggingface_hub itself reads HF_ENDPOINT, HF_TOKEN and the token that `hf auth login` keeps.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from lightlm.data.origin import find_hub_id, read_origin
from lightlm.data.remote import connection_error
from lightlm.errors import HubError, InputError
from lightlm.model.card import HUB_ID, LICENSE, describe_hub_uses, find_license, write_card
from lightlm.model.config import ModelConfig
from lightlm.model.families import read_config
from lightlm.redaction import first_line
from lightlm.store.commit import MANIFEST
from lightlm.tracking.registry import ModelVersion
from lightlm.tracking.tags import ORIGIN_TAG
from lightlm.versions.export import Options, export_version

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKENS_PAGE = "https://huggingface.co/settings/tokens"

LICENSES = "https://huggingface.co/docs/hub/repositories-licenses"

WEIGHTS = (".gguf", ".safetensors")
"""Suffixes of files that programs take weights from, whatever the card says."""

WRITERS = ("write", "admin", "contributor")
"""Roles that an organization gives to people who may add models."""


@dataclass(frozen=True)
class PushRequest:
    """What goes where. `gguf` adds a GGUF file, for llama.cpp and Ollama.

    `may_update` allows a repository that is there already; it keeps its visibility.
    """

    repository: str
    license_name: str
    is_private: bool = True
    may_update: bool = False
    message: str | None = None
    gguf: Options | None = None


class Pushed(BaseModel, frozen=True):
    """What is on the Hub now: the repository, its address, the commit, its files."""

    repository: str
    url: str
    commit: str
    is_private: bool
    is_new: bool
    model_name: str
    model_version: str
    files: list[str]
    note: str = ""


def check_request(repository: str, license_name: str | None, version: ModelVersion) -> str:
    """Return the license to name: the one given, else that of the model training started from.

    Raises:
        InputError: the repository's name is none, or there is no license.
    """
    if not HUB_ID.fullmatch(repository):
        raise InputError(f"--to is {repository!r}; give OWNER/NAME, such as jane/my-model")

    chosen = license_name or find_license(version.tags)
    if chosen is None:
        raise InputError(
            "people look for a license first, and you choose it: give --license apache-2.0, "
            f"mit, cc-by-4.0, ... ({LICENSES}), other, or unknown to name none"
        )
    if not re.fullmatch(LICENSE, chosen):
        raise InputError(f"--license is {chosen!r}; give an id of {LICENSES}, such as apache-2.0")

    return chosen


def open_hub() -> "HfApi":
    """Return a client of the Hub with the token that this machine has for it.

    Raises:
        InputError: there is no token, or HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise InputError("HF_HUB_OFFLINE is set, so that nothing is sent; unset it to push")
    token = get_token()
    if not token:
        raise InputError(
            f"the Hub wants a token that may write: make one at {TOKENS_PAGE}, then run "
            "`hf auth login` or set HF_TOKEN"
        )
    return HfApi(token=token)


def check_access(api: "HfApi", repository: str) -> None:
    """Refuse a token that surely cannot write to the repository, before anything is exported.

    Raises:
        InputError: the token is unknown to the Hub, can only read, or is of somebody else.
        HubError: the Hub cannot be reached.
    """
    with explain(repository):
        who = api.whoami()
    owner = repository.partition("/")[0]
    organizations = {one.get("name"): one.get("roleInOrg") for one in who.get("orgs", [])}

    role = who.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise InputError(
            f"the Hub's token of {who.get('name')} can only read; make one that may write at "
            f"{TOKENS_PAGE}"
        )
    if owner != who.get("name") and owner not in organizations:
        names = ", ".join([who.get("name", ""), *map(str, organizations)])
        raise InputError(
            f"the token is of {who.get('name')}, who is not in {owner}; give --to with one of "
            f"these owners: {names}"
        )
    if organizations.get(owner) not in (None, *WRITERS):
        raise InputError(
            f"{who.get('name')} may only read in {owner}; ask its owners for the role `write`"
        )


def push_version(home: Path, version: ModelVersion, request: PushRequest, api: "HfApi") -> Pushed:
    """Export a version, checked as `export_version` checks it, and upload it as one commit.

    Raises:
        InputError: the repository is there already, or the token may not write to it.
        HubError: the Hub cannot be reached, or refuses an upload.
    """
    check_access(api, request.repository)
    before = check_repository(api, request)

    with tempfile.TemporaryDirectory(prefix="lightlm-push-") as scratch:
        folder = Path(scratch) / "model"
        note = export_version(home, version, "hf", folder).note
        files = {path.name: path for path in sorted(folder.iterdir()) if path.name != MANIFEST}
        rounded = ""
        gguf_name = None

        if request.gguf is not None:
            made = export_version(home, version, "gguf", Path(scratch) / "gguf", request.gguf)
            gguf_name = f"{version.name}-{request.gguf.quantization.upper()}.gguf"
            files[gguf_name] = Path(made.folder) / "model.gguf"
            rounded = "" if made.rounded is None else f"in the GGUF file, {made.rounded.format()}"

        card = make_card(version, request, read_config(folder), gguf_name, rounded)
        with explain(request.repository):
            api.create_repo(request.repository, private=request.is_private, exist_ok=True)
        commit = upload(api, version, request, files, card)
        with explain(request.repository):
            is_private = bool(api.model_info(request.repository).private)

    return Pushed(
        repository=request.repository,
        url=f"{api.endpoint}/{request.repository}",
        commit=commit,
        is_private=is_private,
        is_new=before is None,
        model_name=version.name,
        model_version=version.version,
        files=list(files),
        note="; ".join(filter(None, (note, describe_older(before or [], files)))),
    )


def check_repository(api: "HfApi", request: PushRequest) -> list[str] | None:
    """Return what list_files returns of the repository, if the request may write there.

    Raises:
        InputError: it has files already and is not to be updated; or it is empty and public, where
            the upload is to be private.
    """
    before = list_files(api, request.repository)
    if before is None or request.may_update:
        return before
    if before:
        raise InputError(
            f"{request.repository} is on the Hub already; give --update to add a commit to it, or "
            "another name"
        )
    if request.is_private:
        with explain(request.repository):
            is_private = bool(api.model_info(request.repository).private)
        if not is_private:
            raise InputError(
                f"{request.repository} is on the Hub already, and everybody sees it; make it "
                "private there, or give --public"
            )
    return before


def describe_older(before: Iterable[str], files: Iterable[str]) -> str:
    """Return which weights of an earlier upload stay next to the new ones; "" where none do."""
    older = sorted(name for name in {*before} - {*files} if name.endswith(WEIGHTS))
    if not older:
        return ""
    return f"older weights stay in the repository: {', '.join(older)}; delete them there"


def make_card(
    version: ModelVersion,
    request: PushRequest,
    config: ModelConfig,
    gguf_name: str | None,
    rounded: str,
) -> str:
    """Return the card of a version on the Hub, with the commands that use it there."""
    return write_card(
        version.name,
        version.version,
        config,
        version.tags,
        "hf",
        find_hub_id(read_origin(version.tags.get(ORIGIN_TAG))),
        rounded,
        request.license_name,
        describe_hub_uses(request.repository, gguf_name),
    )


def list_files(api: "HfApi", repository: str) -> list[str] | None:
    """Return a repository's files; None where it does not exist. One that an upload broke off in
    has none.
    """
    with explain(repository):
        if not api.repo_exists(repository):
            return None
        return [name for name in api.list_repo_files(repository) if name != ".gitattributes"]


def upload(
    api: "HfApi", version: ModelVersion, request: PushRequest, files: dict[str, Path], card: str
) -> str:
    """Upload the files and the card as one commit; return its id."""
    from huggingface_hub import CommitOperationAdd

    contents = dict[str, Path | bytes](files) | {"README.md": card.encode()}
    with explain(request.repository):
        done = api.create_commit(
            request.repository,
            [CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message=request.message
            or f"Upload {version.name} version {version.version}, trained by LightLM",
        )
    return done.oid


@contextmanager
def explain(repository: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into an error that says what to do.

    Raises:
        InputError: the token, the repository or the card is refused.
        HubError: no answer, or one that a person cannot change.
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    owner = repository.partition("/")[0]
    refusals = {
        401: f"the Hub does not know the token; make one at {TOKENS_PAGE}, then run "
        "`hf auth login --force` or set HF_TOKEN, which comes first",
        403: f"the token may not write to {repository}; give it write access to {owner} at "
        f"{TOKENS_PAGE}",
    }

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 409:
            raise HubError(
                f"{repository} was changed by somebody else at the same time; run the same command"
            ) from None
        said = first_line(getattr(error, "server_message", None) or error)
        if status in refusals:
            raise InputError(f"{refusals[status]} (the Hub: {said})") from None
        if status == 404:
            raise InputError(
                f"the Hub has no {repository} that the token may see; check owner and name"
            ) from None
        raise HubError(f"the Hub refused the upload ({status}: {said}); try again later") from None
    except (connection_error(), OfflineModeIsEnabled, ConnectionError, RuntimeError) as error:
        said = first_line(error.__cause__ or error)
        raise HubError(
            f"the Hub is out of reach ({said}); check the network and HF_ENDPOINT, then run the "
            "same command: what was uploaded is not sent again"
        ) from None
    except ValueError as error:
        # huggingface_hub has the card validated before anything is uploaded.
        if "metadata" not in str(error):
            raise
        raise InputError(
            f"the Hub refused the card ({' '.join(str(error).split())}); give another --license"
        ) from None
