"""A read-only model registry on MLflow's local database, without importing MLflow.

It has the methods of MlflowClient that LightLM reads with; importing MLflow would take seconds.
With unknown tables it is not used.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from lightlm.errors import LightLMError

WORKSPACE = "default"
"""MLflow's only one without its workspaces; older databases have no such column."""

DELETED = "Deleted_Internal"
"""The stage of a version that was deleted; its row stays."""

PROMPT_TAG = "mlflow.prompt.is_prompt"
"""A registered model with it is a prompt and no model."""

WAIT_SECONDS = 5.0
"""Seconds to wait for a writer that holds the database."""

_BY_NAME = re.compile(r"name='([^']*)'")


class NotRegistered(LightLMError):
    """There is no such model, version or alias; its code is the one that MLflow's own error has."""

    error_code = "RESOURCE_DOES_NOT_EXIST"


class LocalRegistry:
    """All registered models of a database as they stood when it was opened."""

    def __init__(self, versions: list[SimpleNamespace], models: dict[str, dict[str, str]]) -> None:
        self._versions = versions
        self._models = models

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Return what the database holds; None where it cannot be read in this way."""
        try:
            database = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS
            )
            with closing(database):
                database.execute("BEGIN")  # one state for all that follows
                return cls(*_read(database))
        except (sqlite3.Error, ValueError, TypeError):
            return None

    def search_registered_models(self, max_results: int = 100) -> list[Any]:
        """Return the models, sorted by name."""
        models = [
            SimpleNamespace(name=name, aliases=aliases)
            for name, aliases in sorted(self._models.items())
        ]
        return models[:max_results]

    def search_model_versions(self, filter_string: str | None = None) -> list[Any]:
        """Return the versions of all models, or of the one that `name='...'` names."""
        if filter_string is None:
            return list(self._versions)
        found = _BY_NAME.fullmatch(filter_string)
        if found is None:
            raise ValueError(filter_string)
        return [version for version in self._versions if version.name == found[1]]

    def get_registered_model(self, name: str) -> Any:
        """Return a model with its aliases."""
        if name not in self._models:
            raise NotRegistered(f"there is no registered model {name}")
        return SimpleNamespace(name=name, aliases=self._models[name])

    def get_model_version(self, name: str, version: str) -> Any:
        """Return a version."""
        for one in self._versions:
            if (one.name, one.version) == (name, str(version)):
                return one
        raise NotRegistered(f"there is no version {version} of {name}")

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        """Return the version that an alias points at."""
        return self.get_model_version(name, self.get_registered_model(name).aliases.get(alias, ""))


def _read(database: sqlite3.Connection) -> tuple[list[SimpleNamespace], dict[str, dict[str, str]]]:
    prompts = {
        name
        for (name,) in _rows(database, "registered_model_tags", "name", f"key = '{PROMPT_TAG}'")
    }
    models: dict[str, dict[str, str]] = {
        name: {} for (name,) in _rows(database, "registered_models", "name") if name not in prompts
    }

    for name, alias, version in _rows(database, "registered_model_aliases", "name, alias, version"):
        models.setdefault(name, {})[alias] = str(version)

    tags: dict[tuple[str, int], dict[str, str]] = {}
    for name, version, key, value in _rows(
        database, "model_version_tags", "name, version, key, value"
    ):
        tags.setdefault((name, version), {})[key] = value or ""

    versions = []
    wanted = "name, version, run_id, creation_time"
    for name, version, run_id, created in _rows(
        database, "model_versions", wanted, f"current_stage <> '{DELETED}'"
    ):
        aliases = [
            alias for alias, number in models.get(name, {}).items() if number == str(version)
        ]
        versions.append(
            SimpleNamespace(
                name=name,
                version=str(version),
                run_id=run_id,
                aliases=aliases,
                tags=tags.get((name, version), {}),
                creation_timestamp=int(created),
            )
        )

    return [version for version in versions if version.name not in prompts], models


def _rows(
    database: sqlite3.Connection, table: str, columns: str, condition: str = ""
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of a table, of MLflow's default workspace where it knows such."""
    known = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
    conditions = [condition] if condition else []
    if "workspace" in known:
        conditions.append(f"workspace = '{WORKSPACE}'")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    yield from database.execute(f"SELECT {columns} FROM {table}{where}")  # noqa: S608  (names of this module alone)
