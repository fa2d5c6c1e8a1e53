"""Registration: a run's model becomes a version in MLflow's registry, exactly once, its aliases last.

Every step can be done again: a version that the run already has is found and finished.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.store.commit import open_commit
from lightlm.tracking import registry
from lightlm.tracking.recorder import RegistrationRequest
from lightlm.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    MANIFEST_TAG,
    MODEL_FOLDER,
    PREVIOUS,
    PROMOTION_TAG,
    ModelVersion,
    is_unknown,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

SCORE_DIGITS = 5
"""Of bits per byte in a version's tags: two scores that read the same are the same."""

CODE = Path(__file__).with_name("pyfunc_model.py")


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
    number = numbers[0] if numbers else _log_model(run_id, request, requirements)
    client.update_model_version(name, number, request.description)
    for key, value in (request.tags | {MANIFEST_TAG: commit.digest}).items():
        client.set_model_version_tag(name, number, key, value)
    version = registry.describe(client.get_model_version(name, number))
    promote(client, version, request.promote, request.bits_per_byte, request.text_sha256)
    return registry.describe(client.get_model_version(name, number))


def promote(client: "MlflowClient", version: ModelVersion, policy: str, bits_per_byte: float, text_sha256: str) -> str:
    """Give `version` its aliases by `policy`; return the sentence that says why. The champion's alias moves last."""
    name = version.name
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    try:
        champion = registry.describe(client.get_model_version_by_alias(name, CHAMPION))
    except Exception as error:
        # A server that is away is no proof that there is no champion.
        if not is_unknown(error):
            raise
        champion = None
    moves, reason = judge(champion, version.version, policy, bits_per_byte, text_sha256)
    client.set_model_version_tag(name, version.version, PROMOTION_TAG, reason)
    if moves:
        if champion is not None and champion.version != version.version:
            client.set_registered_model_alias(name, PREVIOUS, champion.version)
        client.set_registered_model_alias(name, CHAMPION, version.version)
    return reason


def judge(
    champion: ModelVersion | None, version: str, policy: str, bits_per_byte: float, text_sha256: str
) -> tuple[bool, str]:
    """Return whether version `version` becomes champion, and the sentence that says why."""
    if champion is None:
        return policy != "never", (
            f"version {version} is the first champion" if policy != "never" else "promote is never: no champion yet"
        )
    if champion.version == version:
        return True, champion.tags.get(PROMOTION_TAG, f"version {version} is champion")
    if policy == "never":
        return False, f"version {champion.version} stays champion: tracking.promote is never"
    if policy == "always":
        return True, f"version {version} is champion instead of {champion.version}: tracking.promote is always"
    if champion.tags.get("text_sha256") != text_sha256:
        return True, (
            f"version {version} is champion instead of {champion.version}, which was scored on another text: their "
            "scores do not compare"
        )
    old = _read_score(champion)
    if round(bits_per_byte, SCORE_DIGITS) <= round(old, SCORE_DIGITS):
        return True, (
            f"version {version} is champion: {bits_per_byte:.4f} bits per byte, version {champion.version} has "
            f"{old:.4f} on the same text"
        )
    return False, (
        f"version {champion.version} stays champion: {old:.4f} bits per byte on the same text, version {version} has "
        f"{bits_per_byte:.4f}; use it with --model {version}"
    )


def _read_score(version: ModelVersion) -> float:
    """Return the version's bits per byte; infinite when its tags tell none, so that any score is better."""
    try:
        score = float(version.tags.get("bits_per_byte", "inf"))
    except ValueError:
        return math.inf
    return math.inf if math.isnan(score) else score


def describe_signature(sampling: dict[str, float | int]) -> "ModelSignature":
    """Return what the served model takes: one column of prompts, however named, and the sampling params' defaults."""
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


def _log_model(run_id: str, request: RegistrationRequest, requirements: list[str]) -> str:
    import mlflow

    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(CODE),
            artifacts={MODEL_FOLDER: str(request.hf_folder)},
            pip_requirements=requirements,
            signature=describe_signature(request.sampling),
            registered_model_name=request.model_name,
        )
    return str(info.registered_model_version)
