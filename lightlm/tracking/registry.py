"""The model registry: MLflow's store, versions, aliases, and their files, verified before use."""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from lightlm.errors import CorruptError, LightLMError, ModelVersionError, StoreError, TrackingError
from lightlm.redaction import first_line, redact
from lightlm.store.commit import (
    MANIFEST,
    TEMPORARY,
    Commit,
    commit_folder,
    open_commit,
    remove_folder,
)
from lightlm.store.lock import hold_lock
from lightlm.store.template import copy_template, keep_template, publish_database
from lightlm.store.use import use_store
from lightlm.tracking.local_registry import LocalRegistry
from lightlm.tracking.tags import MANIFEST_TAG, unpack_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
PROMOTION_TAG = "lightlm.promotion"
MODEL_FOLDER = "model"
"""The name of the Hugging Face folder inside a registered model's artifacts."""

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"

REPAIR = "`lightlm store verify --repair` puts an intact copy back where this machine has one"


class ModelVersion(BaseModel, frozen=True):
    """A registered version. Scores and origin stand in `tags`."""

    name: str
    version: str
    run_id: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    created_at: datetime

    @property
    def uri(self) -> str:
        """Return models:/NAME/VERSION."""
        return f"models:/{self.name}/{self.version}"


def tracking_uri(home: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or the SQLite file under LIGHTLM_HOME."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_uri(home)


def local_uri(home: Path) -> str:
    """Return the URI of the SQLite file under LIGHTLM_HOME."""
    return f"sqlite:///{(home / 'mlflow.db').as_posix()}"


def is_local(home: Path) -> bool:
    """Return whether MLflow's store is the one under LIGHTLM_HOME."""
    # Not "is the variable set": mlflow.set_tracking_uri sets it for its own child processes.
    return tracking_uri(home) == local_uri(home)


def set_environment(home: Path) -> None:
    """Put what MLflow reads at import into the environment; call it before `import mlflow`.

    Short timeouts: with the defaults a server that is away would hold a command up for 4 minutes.
    """
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(home)


def open_client(home: Path) -> "MlflowClient":
    """Return a client of MLflow's store. Imports mlflow."""
    import logging

    uri = tracking_uri(home)
    was_set = "MLFLOW_TRACKING_URI" in os.environ
    set_environment(home)
    if not was_set:
        del os.environ["MLFLOW_TRACKING_URI"]

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


def open_store(home: Path) -> "MlflowClient":
    """Return a client whose store has answered; the database under `home` is created first."""
    # The first use of a database creates its tables; two processes at once would collide.
    with hold_lock(home / ".mlflow.lock") if is_local(home) else nullcontext():
        if is_local(home):
            create_database(home)
        client = open_client(home)
        client.search_experiments(max_results=1)
    return client


def read_locally(home: Path) -> LocalRegistry | None:
    """Return what the database of this home holds; None where the registry is elsewhere.

    Importing MLflow takes one to five seconds, reading its tables a few milliseconds.
    """
    if is_local(home) and "MLFLOW_REGISTRY_URI" not in os.environ:
        return LocalRegistry.load(home / "mlflow.db")
    return None


def open_reader(home: Path) -> "MlflowClient | LocalRegistry":
    """Return what answers questions about versions: the local database itself, or MLflow's
    client.
    """
    return read_locally(home) or open_client(home)


_PLACE_ARTIFACTS = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0"
"""Statement that moves the experiment that MLflow creates by itself."""


def create_database(home: Path) -> None:
    """Make MLflow's database under LIGHTLM_HOME if it is not there: as a whole, or not at all.

    A process that is killed while MLflow creates its tables leaves a database that no later process
    can open; so they are created under another name, and the file gets its name when it is
    complete. Call it under a lock.
    """
    path = home / "mlflow.db"
    if not is_local(home) or path.exists():
        return
    if copy_template("mlflow", path, {_PLACE_ARTIFACTS: ((home / "mlartifacts" / "0").as_uri(),)}):
        return

    set_environment(home)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    temporary = home / ".mlflow.db.new"
    temporary.unlink(missing_ok=True)
    SqlAlchemyStore(
        f"sqlite:///{temporary.as_posix()}", (home / "mlartifacts").as_uri()
    ).engine.dispose()
    keep_template("mlflow", temporary)
    publish_database(temporary, path)


def check_name(name: str) -> None:
    """Refuse what cannot be a model's name.

    Raises:
        ModelVersionError: with what can.
    """
    if not re.fullmatch(NAME, name):
        raise ModelVersionError(
            f"{name!r} is no model's name; wanted letters, digits, dots, dashes and underscores, "
            "at most 100"
        )


def download(home: Path, version: ModelVersion) -> Path:
    """Return the version's Hugging Face folder, from the cache under LIGHTLM_HOME or fetched into
    it; verified.

    Raises:
        ModelVersionError: a file differs from the registry's digest; it is not opened.
        TrackingError: MLflow's store cannot be used.
    """
    if not (re.fullmatch(NAME, version.name) and re.fullmatch(r"[1-9]\d{0,8}", version.version)):
        raise ModelVersionError(f"{version.uri!r} is no version's name; it is not opened")

    use_store(home)
    folder = home / "models" / version.name / version.version
    wanted = version.tags.get(MANIFEST_TAG)

    if folder.exists():
        try:
            if open_commit(folder, "model").digest == wanted:
                return folder
        except StoreError:
            pass
        remove_folder(folder)

    def fetch(temporary: Path) -> Mapping[str, Any]:
        # Fetched first and verified then: what is checked here is what is opened later.
        with tempfile.TemporaryDirectory(
            prefix=f"{TEMPORARY}{os.getpid()}-", dir=temporary.parent
        ) as scratch:
            fetched = _fetch(version, Path(scratch), home)
            commit = _verify(version, fetched, wanted)
            for name in json.loads((fetched / MANIFEST).read_bytes())["files"]:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (fetched / name).replace(temporary / name)
        return commit.meta

    return commit_folder(folder, "model", fetch).folder


def _fetch(version: ModelVersion, scratch: Path, home: Path) -> Path:
    with explain_failures(home):
        open_client(home)
        import mlflow.artifacts

        fetched = Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=str(scratch)))
    return fetched / "artifacts" / MODEL_FOLDER


def _verify(version: ModelVersion, fetched: Path, wanted: str | None) -> Commit:
    refused = f"{version.uri} is not as it was registered and is not opened"
    try:
        commit = open_commit(fetched, "model")
    except CorruptError as error:
        raise ModelVersionError(
            f"{refused}: {error.damage.replace(f'{fetched}/', '')}; {REPAIR}"
        ) from None
    except StoreError as error:
        raise ModelVersionError(f"{refused}: {error}") from None

    if commit.digest != wanted:
        raise ModelVersionError(
            f"{refused}: its manifest is {commit.digest[:16]}..., the registry says "
            f"{str(wanted)[:16]}...; {REPAIR}"
        )

    return commit


def find_champion(versions: Iterable[ModelVersion]) -> ModelVersion | None:
    """Return the champion among the versions of a model; None where there is none."""
    return next((version for version in versions if CHAMPION in version.aliases), None)


def list_versions(
    home: Path, name: str, client: "MlflowClient | LocalRegistry | None" = None
) -> list[ModelVersion]:
    """Return all versions of a registered model, newest first.

    Raises:
        ModelVersionError: `name` cannot be a model's name.
        TrackingError: MLflow's store cannot be used.
    """
    check_name(name)
    if client is None and is_local(home) and not (home / "mlflow.db").exists():
        return []

    with explain_failures(home):
        client = client or open_reader(home)
        found = [describe(one) for one in client.search_model_versions(f"name='{name}'")]
        aliases = _aliases(client, name)

    named = [
        one.model_copy(update={"aliases": tuple(sorted(aliases.get(one.version, ())))})
        for one in found
    ]

    return sorted(named, key=lambda one: int(one.version), reverse=True)


def delete_version(home: Path, version: ModelVersion) -> None:
    """Delete a version, and the aliases that point at it, from the registry.

    Raises:
        TrackingError: MLflow's store cannot be used.
    """
    with explain_failures(home):
        open_client(home).delete_model_version(version.name, version.version)


def describe(version: Any) -> ModelVersion:
    """Return MLflow's record of a version as ours."""
    return ModelVersion(
        name=version.name,
        version=str(version.version),
        run_id=version.run_id or "",
        aliases=tuple(sorted(version.aliases or ())),
        tags=unpack_tags(dict(version.tags)),
        created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
    )


@contextmanager
def explain_failures(home: Path) -> Iterator[None]:
    """Turn what MLflow, its database and its network raise inside into one sentence.

    Raises:
        TrackingError: MLflow's store cannot be used.
    """
    try:
        yield
    except LightLMError:
        raise
    except Exception as error:  # noqa: BLE001  (SQLAlchemy, requests and MLflow each raise their own)
        where = redact(tracking_uri(home))
        if is_unreachable(error):
            raise TrackingError(
                f"MLflow at {where} cannot be reached: {first_line(error)}"
            ) from None
        raise TrackingError(
            f"MLflow at {where} did not answer as expected: {first_line(error)}"
        ) from None


def is_unknown(error: Exception) -> bool:
    """Return whether MLflow has no such thing; a missing alias is an invalid value to it."""
    code = getattr(error, "error_code", "")
    return code == "RESOURCE_DOES_NOT_EXIST" or (
        code == "INVALID_PARAMETER_VALUE" and "not found" in str(error)
    )


def is_unreachable(error: Exception) -> bool:
    """Return whether an MLflow error means that its server did not answer."""
    text = str(error)
    return "Max retries" in text or "Connection" in text or "timed out" in text


def _aliases(client: "MlflowClient | LocalRegistry", name: str) -> dict[str, list[str]]:
    try:
        by_alias = client.get_registered_model(name).aliases
    except Exception as error:
        if is_unknown(error):
            return {}
        raise
    versions: dict[str, list[str]] = {}
    for alias, version in by_alias.items():
        versions.setdefault(str(version), []).append(alias)
    return versions
