"""generate-flow: text from a registered model version, never from a path."""

from typing import Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from lightlm.tracking.registry import ModelVersion
from lightlm_flows.writing import CHAMPION, GeneratedText, check_request, reuse_text
from lightlm_flows.writing import open_version as open_registered

Prompt = Annotated[str, Field(min_length=1)]


@flow(name="generate-flow", flow_run_name="generate-{model}", persist_result=False)
def generate_flow(prompt: Prompt, model: str = CHAMPION, sampling: dict[str, Any] | None = None) -> GeneratedText:
    """Continue `prompt` with a registered model version.

    Args:
        prompt: The text to continue.
        model: The version, as models:/NAME@ALIAS or models:/NAME/VERSION.
        sampling: Sampling values, as {"temperature": 0.7}; the same `seed` writes the same text.
    """
    values = check_request(prompt, sampling or {})
    version = find_version(model)
    return write_text(version, prompt, values)


@task(name="Find the registered version", cache_policy=NO_CACHE, persist_result=False)
def find_version(model: str) -> ModelVersion:
    """Return the version that `model` names."""
    return open_registered(model)


@task(name="Write text", cache_policy=NO_CACHE, persist_result=False)
def write_text(version: ModelVersion, prompt: str, sampling: dict[str, Any]) -> GeneratedText:
    """Return the continuation of `prompt` by `version`; MLflow keeps a trace of it."""
    from lightlm.params import load_params
    from lightlm.store.home import find_home
    from lightlm.tracking.traces import trace_generation

    return trace_generation(
        find_home(),
        load_params().tracking.experiment,
        version,
        {"prompt": prompt, **sampling},
        lambda: reuse_text(version, prompt, sampling),
        lambda written: written.model_dump(exclude={"prompt"}),
    )
