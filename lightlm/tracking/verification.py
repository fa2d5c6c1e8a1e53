"""Verification of registered versions against their digests, and repair from an intact copy.

A version's tag names the digest of its manifest, and the manifest those of its files: nothing else
is trusted.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lightlm.errors import CorruptError, StoreError
from lightlm.store.commit import copy_commit, open_commit
from lightlm.store.disk import explain_refusals, list_tree
from lightlm.store.stage import set_aside
from lightlm.tracking.registry import (
    MANIFEST_TAG,
    MODEL_FOLDER,
    ModelVersion,
    explain_failures,
    is_local,
    list_versions,
    open_client,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACTS = "mlartifacts"


@dataclass(frozen=True)
class VersionFiles:
    """A registered version; `folder` is where its files lie on this disk, None where a server has
    them.
    """

    version: ModelVersion
    folder: Path | None
    uri: str

    @property
    def num_bytes(self) -> int:
        """Bytes of the files on this disk."""
        with suppress(OSError):
            return (
                sum(path.lstat().st_size for path in list_tree(self.folder)) if self.folder else 0
            )
        return 0


@dataclass(frozen=True)
class DamagedVersion:
    """A version whose files are not those that were registered; `intact` is a copy that is, None
    where none is left.
    """

    files: VersionFiles
    damage: str
    intact: Path | None

    def describe(self) -> str:
        """Return what is wrong and which command leads on."""
        version = self.files.version
        aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
        if self.intact is None:
            remedy = (
                "no intact copy of it is here; make another version champion with `lightlm "
                "promote` or `lightlm rollback`, or train again"
            )
        else:
            remedy = (
                f"an intact copy is in {self.intact}: `lightlm store verify --repair` puts it back"
            )

        return f"{version.uri}{aliases} is not as it was registered: {self.damage}; {remedy}"


def list_version_files(home: Path) -> list[VersionFiles]:
    """Return the versions that LightLM registered, of all models; none where MLflow's database is
    not made yet.

    Raises:
        TrackingError: MLflow's store cannot be used.
    """
    if is_local(home) and not (home / "mlflow.db").exists():
        return []
    found = []
    with explain_failures(home):
        client = open_client(home)
        for name in _list_models(client):
            for version in list_versions(home, name, client):
                if MANIFEST_TAG in version.tags:
                    uri = client.get_model_version_download_uri(version.name, version.version)
                    found.append(VersionFiles(version, _find_folder(home, uri), uri))
    return found


def find_damage(
    home: Path, files: VersionFiles, *, is_quick: bool = False
) -> DamagedVersion | None:
    """Return what is wrong with a version's files; None where nothing is. A server's files are
    fetched for it.

    `is_quick` reads manifests alone, and nothing of a server's.

    Raises:
        TrackingError: the server does not give the files.
    """
    if is_quick and files.folder is None:
        return None

    wanted = files.version.tags[MANIFEST_TAG]
    with _open_files(home, files) as folder:
        try:
            digest = open_commit(folder, "model", verify=not is_quick).digest
        except CorruptError as error:
            damage = error.damage.replace(f"{folder}/", "")
        except StoreError as error:
            damage = str(error)
        else:
            if digest == wanted:
                return None
            damage = (
                f"its manifest has SHA-256 {digest[:16]}..., the registry says {wanted[:16]}..."
            )

    return DamagedVersion(files, damage, find_intact(home, wanted))


def find_intact(home: Path, digest: str) -> Path | None:
    """Return a folder under `home` whose files have a registered digest: a run's model, or a
    version's local copy.
    """
    for folder in (
        *sorted(home.glob("runs/*/model"), reverse=True),
        *sorted(home.glob("models/*/*")),
    ):
        with suppress(StoreError):
            if open_commit(folder, "model", verify=False).digest == digest and open_commit(
                folder, "model"
            ):
                return folder
    return None


def repair(home: Path, damaged: DamagedVersion) -> Path | None:
    """Put the intact copy back in the place of a version's files; return where the damaged ones
    were set aside.

    Raises:
        StoreError: the disk refused, or the files do not lie under LIGHTLM_HOME; what was there is
            still there.
    """
    folder = damaged.files.folder
    intact = damaged.intact
    artifacts = (home / ARTIFACTS).resolve()

    if folder is None or intact is None or not folder.resolve().is_relative_to(artifacts):
        raise StoreError(
            f"{damaged.files.version.uri} lies at {damaged.files.uri}, not under {artifacts}; "
            "repair it on the machine that has it, or train again"
        )

    copy = copy_commit(intact, folder.with_name(f"{MODEL_FOLDER}.intact"), "model")
    aside = set_aside(home, folder, "versions") if folder.exists() else None
    with explain_refusals(folder):
        copy.folder.rename(folder)

    return aside


def _list_models(client: "MlflowClient") -> Iterator[str]:
    token = None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        yield from (model.name for model in page)
        token = page.token
        if not token:
            return


def _find_folder(home: Path, uri: str) -> Path | None:
    """Return the folder of a version's model on this disk; MLflow's own server keeps what it has
    under the home.
    """
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.scheme == "mlflow-artifacts":
        folder = home / ARTIFACTS / path.lstrip("/")
        return folder / "artifacts" / MODEL_FOLDER if folder.exists() else None
    if parts.scheme in ("", "file") and not parts.netloc:
        from urllib.request import url2pathname

        return Path(url2pathname(parts.path) if parts.scheme else uri) / "artifacts" / MODEL_FOLDER
    return None


@contextmanager
def _open_files(home: Path, files: VersionFiles) -> Iterator[Path]:
    if files.folder is not None:
        yield files.folder
        return
    with tempfile.TemporaryDirectory(prefix="verify-", dir=home) as scratch:
        with explain_failures(home):
            import mlflow.artifacts

            fetched = Path(mlflow.artifacts.download_artifacts(files.version.uri, dst_path=scratch))
        yield fetched / "artifacts" / MODEL_FOLDER
