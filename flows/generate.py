"""generate-flow: text from a registered model version, never from a path."""

from typing import Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from pydantic import Field

from lightlm.data.origin import safe_word
from lightlm.params import Name
from lightlm.tracking.registry import ModelVersion
from lightlm_flows.artifacts import FlowPage
from lightlm_flows.writing import GeneratedText, check_request, reuse_text
from lightlm_flows.writing import open_version as open_registered

Prompt = Annotated[str, Field(min_length=1)]


def name_flow_run() -> str:
    """Return "generate-notes-3", as far as the parameters tell; the version that is found completes it."""
    values = flow_run.parameters
    wanted = [values.get("name"), (values.get("model") or "").removeprefix("models:/")]
    return "-".join(["generate", *(safe_word(word) for word in wanted if word)])


@flow(name="generate-flow", flow_run_name=name_flow_run, persist_result=False)
def generate_flow(
    prompt: Prompt, model: str | None = None, sampling: dict[str, Any] | None = None, name: Name | None = None
) -> GeneratedText:
    """Continue `prompt` with a registered model version.

    Args:
        prompt: The text to continue.
        model: The version, as models:/NAME@ALIAS or models:/NAME/VERSION; empty: the champion.
        sampling: Sampling values, as {"temperature": 0.7}; the same `seed` writes the same text.
        name: The registered model's name; empty: the newest one.
    """
    values = check_request(prompt, sampling or {})
    version = find_version(model, name)
    page = FlowPage(flow_run.id)
    page.rename(f"generate-{version.name}-{version.version}")
    page.close()
    return write_text(version, prompt, values)


@task(name="Find the registered version", cache_policy=NO_CACHE, persist_result=False)
def find_version(model: str | None, name: str | None) -> ModelVersion:
    """Return the version that `model` names within `name`."""
    return open_registered(model, name)


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
