"""Text from a registered version, and its score on a text; shared by generate-flow and the command line."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from lightlm.errors import PromptError
from lightlm.params import describe_validation, load_params
from lightlm.tracking.registry import DEFAULT_NAME, ModelVersion, download, resolve

if TYPE_CHECKING:
    from lightlm.evaluation import Score
    from lightlm.generation import SamplingConfig

CHAMPION = f"models:/{DEFAULT_NAME}@champion"


class GeneratedText(BaseModel):
    """A continuation, without its prompt, and the version that wrote it."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    text: str
    prompt: str
    model_name: str
    model_version: str
    num_new_tokens: int
    tokens_per_second: float
    finish_reason: str


def check_request(prompt: str, sampling: dict[str, Any]) -> dict[str, Any]:
    """Return params' sampling values with the given ones over them, before anything slow is imported.

    Raises:
        PromptError: an empty prompt, or a sampling value that is unknown or out of bounds.
    """
    from pydantic import ValidationError

    from lightlm.params import GenerationParams

    if not prompt:
        raise PromptError("the prompt is empty; give at least one character to continue")
    values = load_params().generation.model_dump() | sampling
    stop = values.pop("stop", ())
    try:
        checked = GenerationParams.model_validate(values).model_dump()
    except ValidationError as error:
        raise PromptError(describe_validation(error)) from None
    return checked | {"stop": stop}


def open_version(model: str) -> ModelVersion:
    """Return the registered version that `model` names; torch is imported meanwhile, by another thread.

    Raises:
        ModelVersionError: there is no such version.
    """
    import threading

    # Both imports take about two seconds; much of it is reading files, which lets the other thread run.
    thread = threading.Thread(target=_import_generation, daemon=True)
    thread.start()
    version = resolve(model)
    download(version)
    thread.join()
    return version


def write_text(version: ModelVersion, prompt: str, sampling: dict[str, Any]) -> GeneratedText:
    """Return the continuation of `prompt` by a registered version, with its speed.

    Raises:
        PromptError: an empty or too long prompt, or a sampling value out of bounds.
    """
    from lightlm.generation import load_generator

    config = _sampling_config(prompt, sampling)
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


def stream_text(version: ModelVersion, prompt: str, sampling: dict[str, Any]) -> Iterator[str]:
    """Yield the continuation of `prompt` as it is written. Raises as `write_text`."""
    from lightlm.generation import load_generator

    yield from load_generator(download(version)).stream(prompt, _sampling_config(prompt, sampling))


def score_text(version: ModelVersion, text: bytes) -> "Score":
    """Return the score of a registered version on a text, in fp32."""
    from lightlm.data.tokenizer import load_tokenizer
    from lightlm.evaluation import evaluate_text
    from lightlm.model.hugging_face import load_model

    folder = download(version)
    return evaluate_text(load_model(folder), load_tokenizer(folder), text)


def _sampling_config(prompt: str, sampling: dict[str, Any]) -> "SamplingConfig":
    from lightlm.generation import check_sampling

    return check_sampling(check_request(prompt, sampling))


def _import_generation() -> None:
    import lightlm.generation  # noqa: F401
