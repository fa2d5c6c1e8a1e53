"""generate-flow: text from a registered model version, never from a path."""

import time
from typing import Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from lightlm.errors import PromptError
from lightlm.params import load_params
from lightlm.tracking.registry import ModelVersion, download, resolve

CHAMPION = "models:/lightlm@champion"

Prompt = Annotated[str, Field(min_length=1, description="The text to continue.")]
Overrides = Annotated[dict[str, Any] | None, Field(description='Sampling values, as {"temperature": 0.7}.')]


class GeneratedText(BaseModel):
    """What generate-flow returns: the text without its prompt, and the version that wrote it."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    text: str
    prompt: str
    model_name: str
    model_version: str
    num_new_tokens: int
    tokens_per_second: float
    finish_reason: str


@flow(name="generate-flow", flow_run_name="generate-{model}", persist_result=False)
def generate_flow(
    prompt: Prompt,
    model: Annotated[str, Field(description="models:/NAME@ALIAS or models:/NAME/VERSION.")] = CHAMPION,
    sampling: Overrides = None,
) -> GeneratedText:
    """Continue `prompt` with a registered model version."""
    version = find_version(model)
    return write_text(version, prompt, sampling or {})


@task(name="Find the registered version", cache_policy=NO_CACHE, persist_result=False)
def find_version(model: str) -> ModelVersion:
    """Return the version that `model` names."""
    return resolve(model)


@task(name="Write text", cache_policy=NO_CACHE, persist_result=False)
def write_text(version: ModelVersion, prompt: str, sampling: dict[str, Any]) -> GeneratedText:
    """Return the continuation of `prompt` by `version`."""
    return generate_text(version, prompt, sampling)


def sampling_values(sampling: dict[str, Any]) -> dict[str, Any]:
    """Return params' sampling values with the given ones over them.

    Raises:
        PromptError: an unknown or wrong value.
    """
    from lightlm.generation import check_sampling

    known = load_params().generation.model_dump()
    return check_sampling(known | sampling).model_dump()


def generate_text(version: ModelVersion, prompt: str, sampling: dict[str, Any]) -> GeneratedText:
    """Return the continuation of `prompt` by a registered version, with its speed.

    Raises:
        PromptError: an empty or too long prompt, or a sampling value out of bounds.
    """
    from lightlm.generation import SamplingConfig, load_generator

    if not prompt:
        raise PromptError("the prompt is empty; give at least one character to continue")
    config = SamplingConfig.model_validate(sampling_values(sampling))
    generator = load_generator(download(version))
    started = time.perf_counter()
    written = generator.generate([prompt], config)[0]
    seconds = max(time.perf_counter() - started, 1e-9)
    return GeneratedText(
        text=written.text,
        prompt=prompt,
        model_name=version.name,
        model_version=version.version,
        num_new_tokens=written.num_new_tokens,
        tokens_per_second=written.num_new_tokens / seconds,
        finish_reason=written.finish_reason,
    )
