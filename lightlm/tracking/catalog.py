"""The catalog: registered models by name, and the version that a person means."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, TypeAdapter

from lightlm.data.origin import Origin, read_logged_params, read_origin
from lightlm.errors import ModelVersionError
from lightlm.tracking import registry
from lightlm.tracking.registry import CHALLENGER, CHAMPION, NAME, PREVIOUS, ModelVersion
from lightlm.tracking.resolved import recall
from lightlm.tracking.runs import list_runs
from lightlm.tracking.tags import DATASET_TAG, MANIFEST_TAG, ORIGIN_TAG, owns_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from lightlm.tracking.local_registry import LocalRegistry

MOST_RUNS = 200
"""Newest runs of this machine that are searched for a registered one."""

MOST_NAMES = 1000
"""Registered models that are listed; MLflow's own limit of a page."""

_URI = re.compile(
    rf"models:/(?P<name>{NAME})(?:@(?P<alias>{NAME})|/(?P<version>[1-9]\d{{0,8}}|latest))"
)


class RegisteredModel(BaseModel, frozen=True):
    """A registered model: how many versions it has, its champion (None where there is none yet),
    its newest one.
    """

    name: str
    num_versions: int
    champion: ModelVersion | None
    newest: ModelVersion

    @property
    def shown(self) -> ModelVersion:
        """The version whose score stands for the model."""
        return self.champion or self.newest


def parse_model(model: str) -> tuple[str | None, str | None, str | None]:
    """Return (name, alias, version) of what a person wrote: a models:/ URI, NAME, an alias, or a
    version's number.

    A number or an alias alone has no name: it is within the model that `--name` names, or the
    newest.

    Raises:
        ModelVersionError: it is none of these.
    """
    found = _URI.fullmatch(model)
    if found:
        return found["name"], found["alias"], found["version"]
    if re.fullmatch(r"[1-9]\d{0,8}", model) or model == "latest":
        return None, None, model
    if model in (CHAMPION, CHALLENGER, PREVIOUS):
        return None, model, None

    if re.fullmatch(NAME, model):
        return model, None, None

    raise ModelVersionError(
        f"{model!r} names no registered model; wanted models:/NAME@ALIAS or models:/NAME/VERSION, "
        "for example models:/notes@champion"
    )


def resolve(home: Path, model: str | None = None, name: str | None = None) -> ModelVersion:
    """Return the version that `model` names, within `name`; without both, the newest model's
    champion.

    Raises:
        ModelVersionError: there is none; the message lists the others.
        TrackingError: MLflow's store cannot be used.
    """
    if name is not None:
        registry.check_name(name)

    own, alias, version = (None, None, None) if model is None else parse_model(model)
    if own is not None and alias is None and version is None and name is not None:
        own, alias = None, own  # a word next to --name is an alias of that model
    if own is not None and name is not None and own != name:
        raise ModelVersionError(f"--model {model} is no version of {name}; give one of the two")

    wanted = own or name, alias, version
    if not registry.is_local(home) or "MLFLOW_REGISTRY_URI" in os.environ:
        return _ask(home, *wanted)
    if not (home / "mlflow.db").exists():
        raise ModelVersionError(f"no model is registered under {home}; run `lightlm train` first")

    asked = json.dumps(wanted)
    return recall(home, asked, TypeAdapter(ModelVersion), lambda: _ask(home, *wanted))


def _ask(home: Path, name: str | None, alias: str | None, version: str | None) -> ModelVersion:
    with registry.explain_failures(home):
        client = registry.open_reader(home)
        found = name or find_newest_name(home, client)
        if found is None:
            raise ModelVersionError("no model is registered; run `lightlm train` first")
        try:
            if alias is not None:
                return registry.describe(client.get_model_version_by_alias(found, alias))
            if version is not None and version != "latest":
                return registry.describe(client.get_model_version(found, version))
        except Exception as error:
            if not registry.is_unknown(error):
                raise
        versions = registry.list_versions(home, found, client)
        if versions and alias is None and version in (None, "latest"):
            champion = registry.find_champion(versions) or versions[0]
            return versions[0] if version == "latest" else champion
        if versions:
            missing = f"no version {version}" if version else f"no version with the alias {alias}"
            raise ModelVersionError(f"{found} has {missing}; {_format_existing(versions)}")
        names = list_names(client)
        if found in names:
            raise ModelVersionError(f"{found} has no version left; train one: `lightlm train`")
        known = f"registered models: {', '.join(names)}" if names else "no model is registered"
        raise ModelVersionError(f"there is no model {found}; {known}; run `lightlm train` first")


def _format_existing(versions: list[ModelVersion]) -> str:
    names = [
        f"{v.version}{' (' + ', '.join(v.aliases) + ')' if v.aliases else ''}"
        for v in versions[:10]
    ]
    return f"it has {', '.join(names)}"


def list_models(home: Path) -> list[RegisteredModel]:
    """Return every registered model of LightLM's, the one with the newest version first.

    Raises:
        TrackingError: MLflow's store cannot be used.
    """
    if registry.is_local(home) and not (home / "mlflow.db").exists():
        return []
    with registry.explain_failures(home):
        client = registry.open_reader(home)
        return _read_models(client)


def _read_models(client: "MlflowClient | LocalRegistry") -> list[RegisteredModel]:
    by_name: dict[str, list[ModelVersion]] = {}
    for one in client.search_model_versions():
        version = registry.describe(one)
        if MANIFEST_TAG in version.tags:
            by_name.setdefault(version.name, []).append(version)

    aliases = {
        model.name: dict(model.aliases)
        for model in client.search_registered_models(max_results=MOST_NAMES)
    }
    models = []

    for name, versions in by_name.items():
        ordered = [
            _give_aliases(version, aliases.get(name, {}))
            for version in sorted(versions, key=lambda one: int(one.version), reverse=True)
        ]
        champion = registry.find_champion(ordered)
        models.append(
            RegisteredModel(
                name=name, num_versions=len(ordered), champion=champion, newest=ordered[0]
            )
        )

    return sorted(models, key=lambda model: _asked_at(model.newest), reverse=True)


def _give_aliases(version: ModelVersion, numbers: dict[str, str]) -> ModelVersion:
    own = sorted(alias for alias, number in numbers.items() if str(number) == version.version)
    return version.model_copy(update={"aliases": tuple(own)})


def list_names(client: "MlflowClient | LocalRegistry") -> list[str]:
    """Return the names of all registered models, sorted."""
    return sorted(model.name for model in client.search_registered_models(max_results=MOST_NAMES))


def find_newest_name(home: Path, client: "MlflowClient | LocalRegistry") -> str | None:
    """Return the name of the model that was trained last; None where there is none.

    On a server that others use, too, the last that was trained here.
    """
    if not registry.is_local(home) or "MLFLOW_REGISTRY_URI" in os.environ:
        for run in list_runs(home, MOST_RUNS):
            name = (run.version or "").removeprefix("models:/").rpartition("/")[0]
            if name and registry.list_versions(home, name, client):
                return name
    return next((model.name for model in _read_models(client)), None)


def choose_name(
    home: Path, client: "MlflowClient | LocalRegistry", names: Sequence[str], origin: Origin | None
) -> tuple[str, ModelVersion | None]:
    """Return the first of `names` that is free or belongs to this text, and its champion; else the
    last.
    """
    champion = None
    for name in names:
        versions = registry.list_versions(home, name, client)
        champion = registry.find_champion(versions)
        owner = champion or (versions[0] if versions else None)
        if owner is None or origin is None or owns_name(owner.tags, origin):
            return name, champion
    return names[-1], champion


def find_origin(home: Path, version: ModelVersion) -> Origin | None:
    """Return the dataset params that a version was trained on; None where they are not recorded.

    Raises:
        TrackingError: MLflow's store cannot be used.
    """
    recorded = read_origin(version.tags.get(ORIGIN_TAG))
    if recorded is not None:
        return recorded

    with registry.explain_failures(home):
        try:
            params = registry.open_client(home).get_run(version.run_id).data.params
        except Exception as error:
            if not registry.is_unknown(error):
                raise
            return None

    logged = read_logged_params(params)
    if logged is not None and version.tags.get(DATASET_TAG) == "python-docs" != logged["source"]:
        # The Hub was away then, and what was learned is not what was asked for.
        return logged | {"source": "python-docs", "config": None, "revision": None}

    return logged


def _asked_at(version: ModelVersion) -> float:
    from lightlm.tracking.registration import asked_at

    return asked_at(version)
