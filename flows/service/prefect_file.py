"""The content of prefect.yaml, in a checkout and in a wheel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lightlm.errors import LightLMError
from lightlm_flows.service.work_pools import PoolVariables

FOLDER = Path(__file__).resolve().parents[1]

PACKAGE = "lightlm_flows"
"""The name that the folder flows/ is imported by."""


def read_settings(pool: str, variables: PoolVariables) -> dict[str, Any]:
    """Return prefect.yaml with its deployments on `pool`, each flow named by its module.

    Raises:
        LightLMError: the file is missing.
    """
    path = find_prefect_file()
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    # Where relative paths of data sets begin: in the checkout; from a wheel, where the worker
    # stands.
    directory = "." if path.parent == FOLDER else str(path.parent)
    settings["pull"] = [
        {"prefect.deployments.steps.set_working_directory": {"directory": directory}}
    ]

    for deployment in settings["deployments"]:
        deployment["entrypoint"] = name_module(deployment["entrypoint"])
        own = deployment["work_pool"].get("job_variables", {})
        deployment["work_pool"] = {"name": pool, "job_variables": variables.merge(own)}

    settings.pop("definitions", None)
    return settings


def find_prefect_file() -> Path:
    """Return prefect.yaml: a checkout's own, or the one that a wheel brings.

    Raises:
        LightLMError: neither is there.
    """
    for folder in (FOLDER, FOLDER.parent):
        if (folder / "prefect.yaml").is_file():
            return folder / "prefect.yaml"
    raise LightLMError(
        f"no prefect.yaml in {FOLDER}; install LightLM again: pip install --force-reinstall lightlm"
    )


def name_module(entrypoint: str) -> str:
    """Return `lightlm_flows.train.train_flow` for `flows/train.py:train_flow`.

    A worker imports it from wherever LightLM is installed there.
    """
    path, _, function = entrypoint.partition(":")
    return ".".join([PACKAGE, *Path(path).with_suffix("").parts[1:], function])


def list_names(settings: Mapping[str, Any]) -> list[str]:
    """Return FLOW/DEPLOYMENT of each; both have one name here."""
    return [f"{deployment['name']}/{deployment['name']}" for deployment in settings["deployments"]]
