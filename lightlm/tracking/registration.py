"""Registration: a run's model becomes a version in MLflow's registry, exactly once, its aliases last.

Every step can be done again: a version that the run already has is found and finished.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.store.commit import open_commit
from lightlm.tracking import registry
from lightlm.tracking.recorder import RegistrationRequest
from lightlm.tracking.registry import MANIFEST_TAG, MODEL_FOLDER, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

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
    registry.promote(client, version, request.promote, request.bits_per_byte, request.text_sha256)
    return registry.describe(client.get_model_version(name, number))


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
