"""Registration: a run's model becomes a version in MLflow exactly once, its aliases last.

Every step can be repeated: a version that the run already has is found and completed.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lightlm.data.origin import format_origin, read_origin
from lightlm.errors import ModelVersionError
from lightlm.evaluation.comparison import FEWEST_DOCUMENTS
from lightlm.json_object import JsonObject
from lightlm.ngram import mixture
from lightlm.store.commit import open_commit
from lightlm.tracking import registry
from lightlm.tracking.record import RegistrationRequest
from lightlm.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    MODEL_FOLDER,
    PREVIOUS,
    PROMOTION_TAG,
    ModelVersion,
    is_unknown,
)
from lightlm.tracking.tags import DATASET_TAG, MANIFEST_TAG, ORIGIN_TAG, is_other_text, pack_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

SCORE = "evaluation/bits_per_byte"
"""The metric that holds a run's final score."""

REQUESTED_TAG = "lightlm.requested_at_ms"
"""Time of the registration request: a record that was sent late must not look newer than it is."""

CODE = Path(__file__).with_name("pyfunc_model.py")
MIXTURE = Path(mixture.__file__)
"""What the registered model runs: itself, and the count tables' code, which it imports by name."""


def register(
    client: "MlflowClient", run_id: str, request: RegistrationRequest, requirements: list[str]
) -> ModelVersion:
    """Return the version of the run's model: logged, described, tagged, and given its aliases.

    Raises:
        CorruptError: the model's folder is not as it was committed.
    """
    name = request.model_name
    commit = open_commit(request.hf_folder, "model")
    earlier = client.search_model_versions(f"run_id='{run_id}'")
    numbers = [str(one.version) for one in earlier if one.name == name]
    number = numbers[0] if numbers else _log_model(client, run_id, request, requirements)
    client.update_model_version(name, number, request.description)
    known = registry.describe(client.get_model_version(name, number)).tags
    # A continued run asks again: its version is as old as the first time.
    first_asked = {REQUESTED_TAG: known[REQUESTED_TAG]} if REQUESTED_TAG in known else {}
    for key, value in pack_tags(request.tags | first_asked | {MANIFEST_TAG: commit.digest}).items():
        client.set_model_version_tag(name, number, key, value)

    version = registry.describe(client.get_model_version(name, number))
    promote(client, version, request)
    return registry.describe(client.get_model_version(name, number))


def find_champion(client: "MlflowClient", name: str) -> ModelVersion | None:
    """Return the champion of a registered model; None where there is none yet."""
    return find_version(client, name, CHAMPION)


def find_version(client: "MlflowClient", name: str, alias: str) -> ModelVersion | None:
    """Return the version that has an alias; None where none has it."""
    try:
        return registry.describe(client.get_model_version_by_alias(name, alias))
    except Exception as error:
        # A server that is away is no proof that there is none.
        if not is_unknown(error):
            raise
        return None


def asked_at(version: ModelVersion) -> float:
    """Return when a version's run asked for it, in milliseconds since 1970; when it was made, where
    it does not say.
    """
    return float(version.tags.get(REQUESTED_TAG, 1000 * version.created_at.timestamp()))


def promote(client: "MlflowClient", version: ModelVersion, request: RegistrationRequest) -> str:
    """Give `version` its aliases by the request's policy; return why. The champion's alias moves
    last.

    A version that was asked for before the present challenger, and recorded later, takes no alias
    from a newer one.
    """
    name = version.name
    challenger = find_version(client, name, CHALLENGER)
    if challenger is None or asked_at(challenger) <= asked_at(version):
        client.set_registered_model_alias(name, CHALLENGER, version.version)

    champion = find_champion(client, name)
    moves, reason = judge(champion, version.version, request)
    if moves and champion is not None and asked_at(champion) > asked_at(version):
        moves = False
        reason = (
            f"version {champion.version} stays champion: it is newer than version "
            f"{version.version}, recorded late; {format_by_hand(name, version.version)}"
        )

    client.set_model_version_tag(name, version.version, PROMOTION_TAG, reason)
    if moves:
        if champion is not None and champion.version != version.version:
            client.set_registered_model_alias(name, PREVIOUS, champion.version)
        client.set_registered_model_alias(name, CHAMPION, version.version)

    return reason


def judge(
    champion: ModelVersion | None, version: str, request: RegistrationRequest
) -> tuple[bool, str]:
    """Return whether version `version` becomes champion, and the reason as a sentence."""
    policy = request.promote
    comparison = request.comparison
    if champion is None:
        return policy != "never", (
            f"version {version} is the first champion"
            if policy != "never"
            else "promote is never: no champion yet"
        )

    if champion.version == version:
        return True, champion.tags.get(PROMOTION_TAG, f"version {version} is champion")
    if policy == "never":
        return False, f"version {champion.version} stays champion: tracking.promote is never"

    if policy == "always":
        return (
            True,
            f"version {version} is champion instead of {champion.version}: tracking.promote is "
            "always",
        )

    stays = f"version {champion.version} stays champion"
    by_hand = format_by_hand(request.model_name, version)
    if is_other_text(champion.tags, request.tags):
        return False, f"{stays}: {format_other_text(champion, request.tags)}; {by_hand}"
    if comparison is None:
        why = request.not_compared or "the two were not scored on the same text"
        return False, f"{stays}: {why}; {by_hand}"

    if comparison.champion_version != champion.version:
        return False, (
            f"{stays}: it became champion while version {version} was trained, which was compared "
            f"with version {comparison.champion_version}; {by_hand}"
        )

    if comparison.is_better:
        return (
            True,
            f"version {version} is champion instead of {champion.version}: {comparison.verdict}",
        )

    hint = f"; {by_hand}" if comparison.num_documents < FEWEST_DOCUMENTS else ""
    return (
        False,
        f"{stays}: version {version} is not shown to be better, {comparison.verdict}{hint}",
    )


def format_by_hand(name: str, version: str) -> str:
    """Return the command that makes a version champion whatever the comparison found."""
    return (
        f"`lightlm promote {version} --name {name}` makes version {version} champion all the same"
    )


def format_other_text(champion: ModelVersion, tags: Mapping[str, str]) -> str:
    """Return that the champion learned another text than a version with these tags, and
    what to do.
    """
    texts = champion.tags.get(DATASET_TAG) or "another text", tags.get(DATASET_TAG) or "this text"
    if texts[0] == texts[1]:
        origins = [read_origin(one.get(ORIGIN_TAG)) for one in (champion.tags, tags)]
        texts = tuple(
            text if one is None else format_origin(one)
            for text, one in zip(texts, origins, strict=True)
        )
    return (
        f"it learned {texts[0]} and not {texts[1]}, and scores of different texts do not compare; "
        "give this text a model of its own with --name OTHER"
    )


def choose_champion(home: Path, wanted: ModelVersion) -> ModelVersion | None:
    """Make `wanted` champion, its files verified first; return the former one, which `previous` now
    names.

    Raises:
        ModelVersionError: it is champion already, or its files are not those that were registered.
        TrackingError: MLflow's store cannot be used.
    """
    registry.download(home, wanted)
    with registry.explain_failures(home):
        client = registry.open_client(home)
        former = find_champion(client, wanted.name)
        if former is not None and former.version == wanted.version:
            raise ModelVersionError(
                f"version {wanted.version} of {wanted.name} is champion already; give another one"
            )
        client.set_registered_model_alias(wanted.name, CHAMPION, wanted.version)
        # After the champion's: when the other is what goes wrong, `previous` is the version just
        # left or the one taken.
        if former is not None:
            client.set_registered_model_alias(wanted.name, PREVIOUS, former.version)
        reason = f"version {wanted.version} was made champion by hand"
        client.set_model_version_tag(wanted.name, wanted.version, PROMOTION_TAG, reason)

    return former


def describe_signature(sampling: dict[str, float | int]) -> "ModelSignature":
    """Return what the served model takes: one column of prompts, however named, and the sampling
    params' defaults.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    params = [
        ParamSpec(key, DataType.long if isinstance(value, int) else DataType.double, value)
        for key, value in sampling.items()
    ]

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string)]),
        outputs=Schema([ColSpec(DataType.string)]),
        params=ParamSchema([*params, ParamSpec("seed", DataType.long, -1)]),
    )


def rehearse(requirements: list[str]) -> None:
    """Write a model without weights into a folder that goes at once.

    What MLflow imports and looks up for its first model, above all the files of each installed
    package, takes a second that the end of a run does not have.
    """
    import mlflow.pyfunc

    with TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(Path(folder) / "model", **_describe_model(requirements, {}))


def _describe_model(requirements: list[str], sampling: dict[str, float | int]) -> JsonObject:
    return {
        "python_model": str(CODE),
        "code_paths": [str(MIXTURE)],
        "pip_requirements": requirements,
        "signature": describe_signature(sampling),
    }


def _log_model(
    client: "MlflowClient", run_id: str, request: RegistrationRequest, requirements: list[str]
) -> str:
    import mlflow

    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            artifacts={MODEL_FOLDER: str(request.hf_folder)},
            **_describe_model(requirements, request.sampling),
            registered_model_name=request.model_name,
            model_type="language-model",
            params=request.params,
        )

    _link_score(client, run_id, info.model_id)
    describe_family(client, request.model_name)
    return str(info.registered_model_version)


def _link_score(client: "MlflowClient", run_id: str, model_id: str) -> None:
    """Show the run's score on the page of the model too: the same point of the run's chart, not a
    second one.
    """
    for score in client.get_metric_history(run_id, SCORE)[-1:]:
        client.log_metric(
            run_id, score.key, score.value, score.timestamp, score.step, model_id=model_id
        )


def describe_family(client: "MlflowClient", name: str) -> None:
    """Describe a registered model that has no description yet."""
    if not client.get_registered_model(name).description:
        client.update_registered_model(
            name,
            "Small language models, each the best that its hours allowed. **champion** is what "
            f"`lightlm generate --name {name}` writes with; **challenger** is the newest; "
            f"**previous** was champion before, and `lightlm rollback --name {name}` brings it "
            "back. Scores are bits per byte of held-out text: they compare on the same text only.",
        )
