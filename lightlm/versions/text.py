"""Text from a registered version, and the score of a text.

A text that the same request must give again is kept under LIGHTLM_HOME/texts/NAME/VERSION.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from lightlm.errors import PromptError, StoreError
from lightlm.params import describe_validation, load_params
from lightlm.store.commit import write_file
from lightlm.tracking.catalog import resolve
from lightlm.tracking.registry import ModelVersion, download
from lightlm.tracking.tags import MANIFEST_TAG

if TYPE_CHECKING:
    from lightlm.evaluation.score import Score
    from lightlm.generation.sampling import SamplingConfig

Sampling = dict[str, Any]
"""Sampling values by name, as options and Prefect give them; `check_request` checks them."""

KEPT_TEXTS = 1000
"""Texts kept per version; the oldest are deleted."""


class GeneratedText(BaseModel, frozen=True):
    """A continuation without its prompt, and its version; `reused`: an earlier request made it."""

    text: str
    prompt: str
    model_name: str
    model_version: str
    num_new_tokens: int
    tokens_per_second: float
    finish_reason: str
    reused: bool = False


def check_request(prompt: str, sampling: Sampling) -> Sampling:
    """Return the params' sampling values with the given ones over them; imports nothing slow.

    Raises:
        PromptError: an empty prompt, or a sampling value that is unknown or out of bounds.
    """
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


def open_version(home: Path, model: str | None = None, name: str | None = None) -> ModelVersion:
    """Return the version that `model` names within `name`, else the newest model's champion.

    torch is imported meanwhile, by another thread.

    Raises:
        ModelVersionError: there is no such version.
    """
    import threading

    # Both imports take about two seconds; much of it is reading files, which lets the other thread
    # run.
    thread = threading.Thread(target=_import_generation, daemon=True)
    thread.start()
    version = resolve(home, model, name)
    download(home, version)
    thread.join()
    return version


def write_text(home: Path, version: ModelVersion, prompt: str, sampling: Sampling) -> GeneratedText:
    """Return the continuation of `prompt` by a registered version, with its speed.

    Raises:
        PromptError: an empty or too long prompt, or a sampling value out of bounds.
    """
    from lightlm.generation.text import load_generator

    config = _sampling_config(prompt, sampling)
    generator = load_generator(download(home, version))
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


def reuse_text(home: Path, version: ModelVersion, prompt: str, sampling: Sampling) -> GeneratedText:
    """Return `write_text`'s result; a kept one if the request has only one: a seed, or greedy."""
    if sampling.get("seed") is None and sampling.get("temperature") != 0:
        return write_text(home, version, prompt, sampling)

    path = _text_path(home, version, prompt, sampling)
    try:
        return GeneratedText.model_validate_json(path.read_bytes()).model_copy(
            update={"reused": True}
        )
    except (OSError, ValidationError):
        pass

    written = write_text(home, version, prompt, sampling)
    with contextlib.suppress(StoreError, OSError):
        write_file(path, written.model_dump_json().encode())
        kept = sorted(path.parent.glob("*.json"), key=lambda one: one.stat().st_mtime, reverse=True)
        for old in kept[KEPT_TEXTS:]:
            old.unlink(missing_ok=True)

    return written


def _text_path(home: Path, version: ModelVersion, prompt: str, sampling: Sampling) -> Path:
    """Return the path of a request's text; it depends on the model's digest, not on its number."""
    request = json.dumps(
        [version.tags.get(MANIFEST_TAG), prompt, sampling], sort_keys=True, default=list
    )
    digest = hashlib.sha256(request.encode()).hexdigest()
    return home / "texts" / version.name / version.version / f"{digest[:32]}.json"


def stream_text(
    home: Path, version: ModelVersion, prompt: str, sampling: Sampling
) -> Iterator[str]:
    """Yield the continuation of `prompt` as it is written. Raises as `write_text`."""
    from lightlm.generation.text import load_generator

    yield from load_generator(download(home, version)).stream(
        prompt, _sampling_config(prompt, sampling)
    )


def score_text(home: Path, version: ModelVersion, documents: Sequence[bytes]) -> "Score":
    """Return the score of a registered version on a text's documents, in fp32."""
    from lightlm.data.tokenization.tokenizer import load_tokenizer
    from lightlm.evaluation.scoring import evaluate_text
    from lightlm.model.hugging_face import load_model
    from lightlm.ngram.version import load_mixture

    folder = download(home, version)
    return evaluate_text(
        load_model(folder), load_tokenizer(folder), documents, mixture=load_mixture(folder)
    )


def _sampling_config(prompt: str, sampling: Sampling) -> "SamplingConfig":
    from lightlm.generation.sampling import check_sampling

    return check_sampling(check_request(prompt, sampling))


def _import_generation() -> None:
    import lightlm.generation.text  # noqa: F401


def write_traced(
    home: Path, version: ModelVersion, prompt: str, sampling: Sampling
) -> GeneratedText:
    """Return the continuation of `prompt` by `version`; MLflow keeps a trace of it."""
    from lightlm.params import load_params
    from lightlm.tracking.traces import trace_generation

    return trace_generation(
        home,
        load_params().tracking.experiment,
        version,
        {"prompt": prompt, **sampling},
        lambda: reuse_text(home, version, prompt, sampling),
        lambda written: written.model_dump(exclude={"prompt"}),
    )
