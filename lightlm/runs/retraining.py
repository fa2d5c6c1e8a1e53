"""The text of a retraining: the given data set, or the one of the model's champion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightlm.data.origin import Origin, describe_origin, format_origin, is_same_text, list_overrides
from lightlm.errors import DatasetError, InputError
from lightlm.params import Overrides, Params, load_params
from lightlm.runs.input_checks import check_sources
from lightlm.runs.naming import add_name, list_model_names
from lightlm.tracking import registry
from lightlm.tracking.catalog import choose_name, find_origin, list_models, resolve
from lightlm.tracking.registry import ModelVersion, find_champion, list_versions


class Relearning(NamedTuple):
    """A retraining's params, their overrides, and the version that has the data set, if any."""

    params: Params
    overrides: Overrides
    version: ModelVersion | None

    def describe(self) -> str:
        """Return the retraining as a sentence."""
        name = self.params.tracking.model_name
        source = format_origin(describe_origin(self.params.dataset))
        version = self.version
        learned = (
            ""
            if version is None
            else f", against version {version.version} ({format_aliases(version)})"
        )
        return f"Model {name}: data set {source}{learned}"

    def check(self, home: Path) -> None:
        """Refuse a data set that is gone.

        Raises:
            DatasetError: with the version that learned it.
        """
        try:
            check_sources(home, self.params)
        except DatasetError as error:
            if self.version is None:
                raise
            raise DatasetError(
                f"version {self.version.version} of {self.version.name} learned "
                f"{self.params.dataset.source}, which "
                f"cannot be read now: {error}; or give another data set with --dataset"
            ) from None


def choose_text(
    home: Path,
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    dataset: str | None = None,
    hours: float | str | None = None,
    name: str | None = None,
) -> Relearning:
    """Return what to retrain, and under which name.

    Without a data set that of the champion of `name`, or of the newest model: source,
    configuration, column, limits. A data set that is given and that the champion learned is read as
    the champion's was.

    Raises:
        InputError: the champion does not say what it learned, or there is no such model.
        TrackingError: MLflow's store cannot be used.
    """
    given = add_name(dict(overrides or {}), name)
    params = load_params(preset, given, dataset=dataset, hours=hours)
    names_one = params.dataset.source != load_params().dataset.source  # the preset does

    if dataset is not None or "dataset.source" in given or names_one:
        wanted = describe_origin(params.dataset)
        chosen, version = _choose_model(home, params, wanted)
        origin = None if version is None else find_origin(home, version)
        if origin is not None and is_same_text(
            origin | {"text_column": None}, wanted | {"text_column": None}
        ):
            given = list_overrides(origin) | given
    else:
        chosen, version = find_model(home, params.tracking.model_name)
        if version is not None:
            given = list_overrides(find_learned_text(home, version)) | given
        elif params.tracking.model_name is not None:
            raise InputError(
                f"there is no model {chosen} yet; say what it is to learn: --dataset FILE_OR_FOLDER"
            )
        else:
            chosen = list_model_names(params)[0]

    given["tracking.model_name"] = chosen
    return Relearning(load_params(preset, given, dataset=dataset, hours=hours), given, version)


def find_learned_text(home: Path, version: ModelVersion) -> Origin:
    """Return the data set that a version was trained on.

    Raises:
        InputError: nothing says so.
    """
    origin = find_origin(home, version)
    if origin is None:
        raise InputError(
            f"version {version.version} of {version.name} does not say which data set it learned; "
            f"give it: --dataset FILE_OR_FOLDER --name {version.name}"
        )
    return origin


def find_model(home: Path, name: str | None) -> tuple[str, ModelVersion | None]:
    """Return a model's name, or the newest's, and its champion, else its newest version, or None.

    Raises:
        TrackingError: MLflow's store cannot be used.
    """
    if name is None:
        models = list_models(home)
        if not models:
            return "", None
        if registry.is_local(home):
            return models[0].name, models[0].shown
        newest = resolve(home)
        return newest.name, newest
    versions = list_versions(home, name)
    champion = find_champion(versions)
    return name, champion or (versions[0] if versions else None)


def _choose_model(home: Path, params: Params, origin: Origin) -> tuple[str, ModelVersion | None]:
    names = list_model_names(params)
    if registry.is_local(home) and not (home / "mlflow.db").exists():
        return names[0], None
    if len(names) == 1:
        return find_model(home, names[0])
    with registry.explain_failures(home):
        chosen, _ = choose_name(home, registry.open_client(home), names, origin)
    return find_model(home, chosen)


def format_aliases(version: ModelVersion) -> str:
    """Return the version's aliases for a sentence."""
    return ", ".join(version.aliases) or "no alias"


def find_text(
    home: Path,
    preset: str,
    overrides: Overrides | None,
    dataset: str | None,
    hours: float | None,
    name: str | None,
) -> Params:
    """Return the params of the retraining: the data set that was given, else the champion's own."""
    relearning = choose_text(home, preset, overrides, dataset=dataset, hours=hours, name=name)
    relearning.check(home)
    return relearning.params
