"""Test of the Kubernetes manifest of a run on several machines: its shape, and what it starts."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from torch.distributed.run import get_args_parser

from lightlm.training.agent import RUN_ID
from lightlm.training.distributed import OWN_STORE

MANIFEST = Path(__file__).resolve().parents[2] / "docker" / "pytorchjob.yaml"


def describe_object(*required: str, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object without other properties."""
    names = {"required": list(required or properties)}
    return {"type": "object", "properties": properties, "additionalProperties": False} | names


TEXT = {"type": "string"}
VARIABLE = describe_object("name", name=TEXT, value=TEXT, valueFrom={"type": "object"})
CONTAINER = describe_object(
    name={"const": "pytorch"},  # the operator looks for a container of this name
    image=TEXT,
    command={"type": "array", "items": TEXT},
    env={"type": "array", "items": VARIABLE},
    resources=describe_object(limits={"type": "object"}),
    volumeMounts={"type": "array", "items": describe_object(name=TEXT, mountPath=TEXT)},
)
POD = describe_object(
    containers={"type": "array", "items": CONTAINER, "minItems": 1},
    volumes={"type": "array", "items": describe_object(name=TEXT, persistentVolumeClaim={})},
)
REPLICAS = describe_object(
    replicas={"type": "integer", "minimum": 1},
    restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
    template=describe_object(spec=POD),
)
SCHEMA = describe_object(
    apiVersion={"const": "kubeflow.org/v1"},
    kind={"const": "PyTorchJob"},
    metadata=describe_object(name={"type": "string", "pattern": "^[a-z0-9-]{1,63}$"}),
    spec=describe_object(
        runPolicy=describe_object(
            cleanPodPolicy={"enum": ["Running", "All", "None"]},
            ttlSecondsAfterFinished={"type": "integer"},
        ),
        pytorchReplicaSpecs=describe_object(Master=REPLICAS, Worker=REPLICAS),
    ),
)
"""The part of the resource PyTorchJob (kubeflow.org/v1) that we use, with the words for its policies."""


@pytest.fixture
def manifest() -> dict[str, Any]:
    return yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))


def test_the_manifest_has_the_shape_of_a_pytorch_job(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, SCHEMA)
    manifest["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] = "Sometimes"
    with pytest.raises(jsonschema.ValidationError, match="Sometimes"):
        jsonschema.validate(manifest, SCHEMA)


def test_its_workers_join_its_master(manifest: dict[str, Any]) -> None:
    replicas = manifest["spec"]["pytorchReplicaSpecs"]
    master, worker = (replicas[role]["template"]["spec"]["containers"][0] for role in replicas)
    options = get_args_parser().parse_args(worker["command"][1:])
    nodes = sum(one["replicas"] for one in replicas.values())
    assert (options.nnodes, options.rdzv_backend, options.rdzv_id) == (str(nodes), "c10d", RUN_ID)
    assert f"training.num_nodes={nodes}" in master["command"]
    assert f"training.devices={options.nproc_per_node}" in master["command"]
    assert options.rdzv_endpoint == f"{manifest['metadata']['name']}-master-0:29500"
    assert {"name": OWN_STORE, "value": "1"} in worker["env"]
    assert options.training_script == "lightlm.training.distributed" and options.module
