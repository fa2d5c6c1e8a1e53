"""From a checked request to the texts that the engine writes for it."""

from collections.abc import Sequence

from lightlm.errors import LightLMError
from lightlm.generation.running_batch import BatchedText
from lightlm.generation.sampling import SamplingConfig
from lightlm.serving.choices import Choice, RequestTexts
from lightlm.serving.errors import ApiError, refuse_value
from lightlm.serving.requests import MOST_TEXTS, ChatRequest, CompletionRequest
from lightlm.serving.versions import LoadedVersion

SEEDS = 1 << 63
"""Number of seeds; the choices of one prompt count on from its seed."""


def prepare_completion(loaded: LoadedVersion, request: CompletionRequest) -> RequestTexts:
    """Return the choices of a completion: n of the first prompt, then n of the next.

    Raises:
        ApiError: a prompt or a value cannot be used.
    """
    request.check_supported()
    sampling = request.choose_sampling(max(1, request.num_new_tokens))
    prompts = request.list_prompts()
    if len(prompts) * request.num_choices > MOST_TEXTS:
        raise refuse_value(
            "n", f"prompts times n are {len(prompts) * request.num_choices}, at most {MOST_TEXTS}"
        )

    choices: list[Choice] = []
    for prompt in prompts:
        ids = _read_prompt(loaded, prompt)
        echo = ""
        if request.echo:
            echo = prompt if isinstance(prompt, str) else loaded.tokenizer.decode(ids)
        for number in range(request.num_choices):
            text = BatchedText(
                ids,
                _give_seed(sampling, number),
                request.logprobs,
                is_prompt_scored=bool(request.echo) and request.logprobs is not None,
                is_continued=request.num_new_tokens > 0,
                is_streamed=bool(request.stream),
            )
            choices.append(Choice(len(choices), text, loaded.tokenizer, echo))

    return RequestTexts(loaded, choices)


def prepare_chat(loaded: LoadedVersion, request: ChatRequest) -> RequestTexts:
    """Return the choices of a chat completion.

    Raises:
        ApiError: the model has no chat template, or a value cannot be used.
    """
    request.check_supported()
    if loaded.template is None:
        raise ApiError(
            400,
            f"{loaded.name} has no chat template: it continues texts and was not taught to answer; "
            "use /v1/completions",
            param="model",
            code="model_not_supported",
        )

    messages = [
        {"role": message.role, "content": message.read_text()} for message in request.messages
    ]
    _check_size(loaded, sum(len(message["content"]) for message in messages), "messages")
    try:
        ids = loaded.template.encode(messages)
    except LightLMError as error:
        raise refuse_value("messages", str(error)) from None
    _check_length(loaded, ids, "messages")

    room = max(1, loaded.engine.batch.context_length - len(ids))
    num_new_tokens = request.max_completion_tokens or request.max_tokens or room
    sampling = request.choose_sampling(num_new_tokens)
    choices = [
        Choice(
            number,
            BatchedText(
                ids,
                _give_seed(sampling, number),
                request.num_alternatives,
                end_ids=loaded.template.end_ids,
                is_streamed=bool(request.stream),
            ),
            loaded.tokenizer,
        )
        for number in range(request.num_choices)
    ]
    return RequestTexts(loaded, choices)


def _read_prompt(loaded: LoadedVersion, prompt: str | list[int]) -> list[int]:
    tokenizer = loaded.tokenizer
    if isinstance(prompt, str):
        _check_size(loaded, len(prompt), "prompt")
        ids = tokenizer.encode(prompt)
    else:
        ids = prompt
    if not ids:
        raise refuse_value("prompt", "a prompt is empty; give at least one character or id")
    if max(ids) >= tokenizer.vocab_size:
        raise refuse_value(
            "prompt",
            f"the prompt holds the id {max(ids)}; {loaded.name} has ids below "
            f"{tokenizer.vocab_size:,}",
        )
    _check_length(loaded, ids, "prompt")
    return ids


def _check_size(loaded: LoadedVersion, num_characters: int, param: str) -> None:
    """Refuse what no tokens can hold, before it is tokenized: 4 MB would take ten seconds, in which
    no other request gets an answer.
    """
    room = loaded.engine.batch.context_length
    if num_characters > room * loaded.longest_token:
        raise _refuse_length(loaded, f"{num_characters:,} characters", param)


def _check_length(loaded: LoadedVersion, ids: Sequence[int], param: str) -> None:
    if len(ids) > loaded.engine.batch.context_length:
        raise _refuse_length(loaded, f"{len(ids):,} tokens", param)


def _refuse_length(loaded: LoadedVersion, length: str, param: str) -> ApiError:
    room = loaded.engine.batch.context_length
    return ApiError(
        400,
        f"{param} is {length} long, {loaded.name} reads at most {room:,} tokens; give less",
        param=param,
        code="context_length_exceeded",
    )


def _give_seed(sampling: SamplingConfig, number: int) -> SamplingConfig:
    if sampling.seed is None or not number:
        return sampling
    return sampling.model_copy(update={"seed": (sampling.seed + number) % SEEDS})
