"""The server as its clients see it: the openai package, and plain HTTP."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from lightlm.generation.text import load_generator
from lightlm.tracking.registry import open_client
from lightlm.versions.text import check_request
from tests.serving.conftest import KEY, SECONDS, Registered, Served, start_server

PROMPT = "the old river 7 walks"


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, timeout=SECONDS
    ) as opened:
        yield opened


def wait_until(is_reached: Callable[[], bool]) -> None:
    """Return when something is so."""
    deadline = time.monotonic() + SECONDS
    while not is_reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_models_are_versions_and_aliases(client: openai.OpenAI) -> None:
    found = {model.id: model for model in client.models.list()}
    assert {"notes/1", "notes/2", "notes@champion"} <= set(found)
    assert client.models.retrieve("notes").model_extra == {"root": "models:/notes/1"}
    with pytest.raises(openai.NotFoundError, match="notes has no version 9"):
        client.models.retrieve("notes/9")


def test_a_completion_is_what_generate_writes(
    client: openai.OpenAI, registered: Registered
) -> None:
    sampling = check_request(PROMPT, {"max_new_tokens": 80, "seed": 5})
    from lightlm.generation.sampling import check_sampling

    expected = load_generator(registered.folders[0]).generate([PROMPT], check_sampling(sampling))
    answer = client.completions.create(model="notes@champion", prompt=PROMPT, max_tokens=80, seed=5)
    (choice,) = answer.choices
    assert choice.text == expected[0].text
    assert choice.finish_reason == "length"
    assert answer.model == "notes/1"
    assert answer.system_fingerprint is not None and len(answer.system_fingerprint) == 15
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 80
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 80


@pytest.mark.parametrize("stop", [None, "a", ["zz", "e"]])
def test_a_stream_is_the_whole_in_pieces(
    client: openai.OpenAI, stop: str | list[str] | None
) -> None:
    options = {"model": "notes", "prompt": PROMPT, "max_tokens": 60, "seed": 2, "stop": stop}
    whole = client.completions.create(**options)  # type: ignore[call-overload]
    stream = client.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )  # type: ignore[call-overload]
    chunks = list(stream)
    assert (
        "".join(choice.text for chunk in chunks for choice in chunk.choices)
        == whole.choices[0].text
    )
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_a_stop_text_over_the_border_of_tokens_ends_the_text(client: openai.OpenAI) -> None:
    plain = client.completions.create(model="notes", prompt=PROMPT, max_tokens=60, seed=2)
    text = plain.choices[0].text
    stop = text[10:17]
    stopped = client.completions.create(
        model="notes", prompt=PROMPT, max_tokens=60, seed=2, stop=stop, logprobs=1
    ).choices[0]
    assert stopped.text == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert stopped.logprobs is not None
    assert max(stopped.logprobs.text_offset or [0]) < max(1, len(stopped.text))


def test_n_choices_of_several_prompts_are_numbered_and_differ(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="notes", prompt=[PROMPT, "the stone"], n=3, max_tokens=30, seed=1, temperature=1
    )
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert len({choice.text for choice in answer.choices}) == 6
    again = client.completions.create(
        model="notes", prompt="the stone", max_tokens=30, seed=2, temperature=1
    )
    assert answer.choices[4].text == again.choices[0].text  # the second choice counts on the seed
    prompts = sum(
        client.completions.create(model="notes", prompt=one, max_tokens=1).usage.prompt_tokens  # type: ignore[union-attr]
        for one in (PROMPT, "the stone")
    )
    assert answer.usage is not None and answer.usage.prompt_tokens == prompts


def test_an_echo_scores_the_prompts_own_tokens(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="notes", prompt=PROMPT, echo=True, max_tokens=5, logprobs=3, temperature=0
    )
    (choice,) = answer.choices
    scores = choice.logprobs
    assert choice.text.startswith(PROMPT)
    assert scores is not None and scores.tokens is not None and scores.text_offset is not None
    assert "".join(scores.tokens[:-5]) == PROMPT
    assert scores.token_logprobs is not None and scores.token_logprobs[0] is None
    assert all(value <= 0 for value in scores.token_logprobs[1:])
    assert scores.text_offset == sorted(scores.text_offset)
    alternatives = scores.top_logprobs
    assert alternatives is not None and alternatives[0] is None
    assert all(len(one) in (3, 4) for one in alternatives[1:])

    only = client.completions.create(
        model="notes", prompt=PROMPT, echo=True, max_tokens=0, logprobs=0
    ).choices[0]
    assert only.text == PROMPT
    assert only.logprobs is not None
    assert only.logprobs.token_logprobs == pytest.approx(scores.token_logprobs[:-5], abs=1e-4)


def test_ids_are_a_prompt(client: openai.OpenAI) -> None:
    text = client.completions.create(model="notes", prompt=[[5, 6, 7]], max_tokens=4, seed=1)
    same = client.completions.create(model="notes", prompt=[5, 6, 7], max_tokens=4, seed=1)
    assert text.choices[0].text == same.choices[0].text
    with pytest.raises(openai.BadRequestError, match="the prompt holds the id 99999"):
        client.completions.create(model="notes", prompt=[99999], max_tokens=4)


def test_a_model_without_a_chat_template_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="notes/1 has no chat template") as caught:
        client.chat.completions.create(
            model="notes/1", messages=[{"role": "user", "content": "the"}]
        )
    assert caught.value.code == "model_not_supported"


def test_a_model_with_one_answers(client: openai.OpenAI) -> None:
    options = {
        "model": "notes/2", "messages": [{"role": "user", "content": "the river"}],
        "max_completion_tokens": 12, "seed": 4, "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    whole = client.chat.completions.create(**options)  # type: ignore[call-overload]
    (choice,) = whole.choices
    assert choice.message.role == "assistant"
    scored = choice.logprobs.content
    spoken = b"".join(bytes(token.bytes) for token in scored).decode("utf-8", "replace")
    assert spoken == choice.message.content
    assert [len(token.top_logprobs) for token in scored] == [2] * 12

    continued = client.completions.create(
        model="notes/2", prompt="<user>the river\n<assistant>", max_tokens=12, seed=4
    )
    assert continued.choices[0].text == choice.message.content
    # Its answer and the next question are a conversation; what is null is as if left out.
    talk = [*options["messages"], choice.message, {"role": "user", "content": "and"}]
    again = client.chat.completions.create(
        **options | {"messages": talk}, extra_body={"audio": None, "tools": None}
    )  # type: ignore[call-overload]
    assert again.usage.prompt_tokens > whole.usage.prompt_tokens

    chunks = list(client.chat.completions.create(**options, stream=True))  # type: ignore[call-overload]
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("values", "param", "words"),
    [
        ({"prompt": ""}, "prompt", "prompt is empty"),
        ({"temperature": -1}, "temperature", "temperature is -1"),
        ({"top_p": 0}, "top_p", "top_p is 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 100, "prompt": ["a", "b"]}, "n", "at most 128"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": 0}, "max_tokens", "echo"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ({"presence_penalty": 1}, "presence_penalty", "is not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "is not supported"),
        ({"best_of": 3}, "best_of", "is not supported"),
        ({"suffix": "x"}, "suffix", "is not supported"),
        ({"stop": ""}, "stop", "at least 1 character"),
        ({"temprature": 1}, "temprature", "Unrecognized request argument supplied: temprature"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"stop": ["a"] * 17}, "stop", "at most 16 items"),
        ({"prompt": [3, -1]}, "prompt.1", "greater than or equal to 0"),
        ({"prompt": "7 " * 200}, "prompt", "tokens long, notes/1 reads at most 256"),
        ({"prompt": "x" * 4_000_000}, "prompt", "4,000,000 characters long, notes/1 reads at most"),
        ({"model": "no-such"}, "model", "there is no model no-such"),
        ({"model": "notes@nobody"}, "model", "alias nobody"),
        ({"model": "../x"}, "model", "names no registered model"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_by_its_parameter(
    served: Served, values: dict[str, object], param: str, words: str
) -> None:
    with served.open_client() as client:
        answer = client.post("/v1/completions", json={"model": "notes", "prompt": "a"} | values)
    error = answer.json()["error"]
    assert answer.status_code == (404 if param == "model" else 400)
    assert words in error["message"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"[" * 100_000, b'{"prompt": "\\ud800"}', b"\xff"]
)
def test_a_body_that_is_no_request_is_refused(served: Served, body: bytes) -> None:
    with served.open_client() as client:
        headers = {"Content-Type": "application/json"}
        answer = client.post("/v1/completions", content=body, headers=headers)
    assert answer.status_code in (400, 404) or b"ud800" in body
    assert "error" in answer.json() or b"ud800" in body


def test_without_the_key_or_with_another_host_nothing_is_said(served: Served) -> None:
    def ask(path: str, **headers: str) -> httpx.Response:
        return httpx.get(served.url + path, headers=headers, timeout=SECONDS)

    for headers in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Basic {KEY}"}):
        for path in ("/v1/models", "/metrics", "/nothing"):
            answer = ask(path, **headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
    other = ask("/v1/models", Authorization=f"Bearer {KEY}", Host="evil.example:80")
    assert (other.status_code, other.json()["error"]["code"]) == (403, "invalid_host")
    assert ask("/health").json() == {"status": "ok"}


def test_a_body_that_is_too_long_is_refused_with_or_without_its_length(served: Served) -> None:
    def stream() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(50):
            yield b"x" * 100_000

    with served.open_client() as client:
        for content in (b"x" * 5_000_000, stream()):
            answer = client.post(
                "/v1/completions", content=content, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 413
            assert "4,194,304 bytes" in answer.json()["error"]["message"]


def test_what_is_not_there_is_said_in_openais_shape(served: Served) -> None:
    with served.open_client() as client:
        assert client.get("/docs").status_code == 404
        assert "see /v1/models" in client.get("/v1/nothing").json()["error"]["message"]
        assert client.get("/v1/completions").status_code == 405


def test_many_clients_at_once_get_the_texts_that_each_would_get_alone(served: Served) -> None:
    def ask(seed: int) -> str:
        values = {"model": "notes", "prompt": PROMPT[: 3 + seed], "max_tokens": 5 * seed + 1}
        with served.open_client() as client:
            answer = client.post("/v1/completions", json=values | {"seed": seed}).json()
        return answer["choices"][0]["text"]

    alone = [ask(seed) for seed in range(12)]
    together = [""] * 12

    def keep(seed: int) -> None:
        together[seed] = ask(seed)

    threads = [threading.Thread(target=keep, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_full_line_refuses_a_request_with_a_time_to_try_again(served: Served) -> None:
    with served.open_client() as client:
        values = {"model": "notes", "prompt": "a", "n": 13, "max_tokens": 2}
        answer = client.post("/v1/completions", json=values)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert client.post("/v1/completions", json=values | {"n": 12}).status_code == 200


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_text_ends_when_its_client_leaves(served: Served, is_stream: bool) -> None:
    values = {"model": "notes", "prompt": "a", "max_tokens": 1_000_000, "stream": is_stream}
    before = served.read_metrics()["lightlm_cancelled_texts_total"]
    running = 'lightlm_running_texts{model="notes/1"}'
    with served.open_client() as client:
        if is_stream:
            with client.stream("POST", "/v1/completions", json=values) as answer:
                lines = answer.iter_lines()
                next(lines)
                assert served.read_metrics()[running] == 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/completions", json=values, timeout=0.5)

    wait_until(lambda: served.read_metrics()[running] == 0)
    wait_until(lambda: served.read_metrics()["lightlm_cancelled_texts_total"] == before + 1)


def test_a_new_champion_serves_new_requests_and_running_ones_end_on_the_old(
    served: Served, registered: Registered, client: openai.OpenAI
) -> None:
    stream = client.completions.create(
        model="notes@champion", prompt="a", max_tokens=1_000_000, stream=True
    )
    assert next(stream).model == "notes/1"
    registered.promote("2")

    def ask() -> str:
        return client.completions.create(model="notes@champion", prompt="a", max_tokens=1).model

    wait_until(lambda: ask() == "notes/2")
    assert {next(stream).model for _ in range(20)} == {"notes/1"}
    stream.close()
    registered.promote("1")
    wait_until(lambda: ask() == "notes/1")


def test_the_metrics_count_requests_tokens_and_seconds(served: Served) -> None:
    before = served.read_metrics()
    with served.open_client() as client:
        values = {"model": "notes/1", "prompt": "the", "max_tokens": 7}
        assert client.post("/v1/completions", json=values).status_code == 200
    after = served.read_metrics()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('lightlm_requests_total{path="/v1/completions",status="200"}') == 1
    assert grown('lightlm_generated_tokens_total{model="notes/1"}') == 7
    assert grown('lightlm_prompt_tokens_total{model="notes/1"}') >= 1
    assert grown("lightlm_request_seconds_count") == 1


def test_events_end_with_done(served: Served) -> None:
    values = {"model": "notes", "prompt": "a", "max_tokens": 3, "stream": True}
    with served.open_client() as client:
        answer = client.post("/v1/completions", json=values)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: "))["id"] for event in events[:-2])


@pytest.mark.faults
def test_a_server_whose_registry_is_away_lives_and_tells_clients_no_address(
    tmp_path: Path,
) -> None:
    with start_server(tmp_path, registry="http://127.0.0.1:9") as server:
        assert httpx.get(f"{server.url}/health", timeout=SECONDS).status_code == 200
        with server.open_client() as client:
            answer = client.post("/v1/completions", json={"prompt": "a"})
        assert answer.status_code == 503
        assert "127.0.0.1:9" not in answer.text
        assert answer.json()["error"]["type"] == "server_error"


@pytest.mark.slow
def test_mlflow_gets_a_trace_of_each_request_with_its_own_times(registered: Registered) -> None:
    with start_server(registered.home, "--traces") as server, server.open_client() as client:
        whole = {"model": "notes", "prompt": "the old hf_abcdefghijklmnop", "max_tokens": 5, "n": 2}
        before = time.time()
        answer = client.post("/v1/completions", json=whole | {"user": "somebody"}).json()
        streamed = client.post("/v1/completions", json=whole | {"n": 1, "stream": True})
        assert streamed.status_code == 200
    # The server has ended, and waited for its traces.
    store = open_client(registered.home)
    experiment = store.get_experiment_by_name("lightlm")
    assert experiment is not None
    found = store.search_traces(locations=[experiment.experiment_id], order_by=["timestamp_ms ASC"])
    spans = [trace.data.spans[0] for trace in found]
    assert len(spans) == 2
    assert spans[0].inputs == {
        "model": "notes",
        "prompt": "the old [hidden]",
        "max_tokens": 5,
        "n": 2,
    }
    assert spans[0].outputs["texts"] == [one["text"] for one in answer["choices"]]
    assert spans[0].outputs["finish_reasons"] == ["length", "length"]
    assert spans[1].outputs["new_tokens"] == 5
    assert before <= spans[0].start_time_ns / 1e9 <= spans[0].end_time_ns / 1e9 <= time.time()
