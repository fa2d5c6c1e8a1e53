"""`lightlm serve` under load: many clients at once, against one client, and against llama.cpp's
server with the same model.

    .venv/bin/python benchmarks/serving.py [--clients 32] [--rounds 3] [--rival-python PATH]

The model is the champion of LIGHTLM_HOME's newest model, or --model's. Each client asks `--rounds`
times for `--new-tokens` tokens, sampled by a seed, and waits for each answer. A request that is not
answered by all of its tokens is lost. Seconds are from the request to the whole answer; the first
token is that of a stream of a single client. `--rival-python` is a Python with `pip install
xllamacpp`, which is llama.cpp's own server in a wheel (a slot per client), or with `pip install
"llama-cpp-python[server]"`, which answers one request at a time. It gets `lightlm export --to gguf`.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from commands import LIGHTLM
from results import Figure, parse_folder, report

PROMPT = "The first"
SECONDS = 600.0
"""Seconds that only bound a failure."""


LLAMA_CPP = """
import sys, time, xllamacpp
model, port, clients, threads = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path = model
params.model_alias = {"model"}
params.port = port
params.n_parallel = clients
params.n_ctx = clients * 256
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
params.ui = False
server = xllamacpp.Server(params)
time.sleep(3600)
"""
"""llama.cpp's own server with a slot for each client, run by `--rival-python -c`."""


class Load(NamedTuple):
    """What a number of clients saw."""

    num_requests: int
    num_lost: int
    tokens_per_second: float
    median_seconds: float
    p99_seconds: float


class Target(NamedTuple):
    """A server: its address, the key, and the model's name."""

    url: str
    key: str
    model: str


def find_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return opened.getsockname()[1]


@contextlib.contextmanager
def start(command: list[str], target: Target, **environment: str) -> Iterator[float]:
    """Start a server; yield the seconds until it answered, and end it."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        headers = {"Authorization": f"Bearer {target.key}"}
        while True:
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with {process.returncode}")
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"{target.url}/v1/models", headers=headers)
                if answer.status_code == 200:
                    break
            time.sleep(0.02)
        yield time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(30)


async def ask(client: httpx.AsyncClient, target: Target, num_tokens: int, seed: int) -> int:
    """Return the tokens of one answer; 0 where there is none."""
    values = {
        "model": target.model,
        "prompt": PROMPT,
        "max_tokens": num_tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "seed": seed,
    }
    try:
        answer = await client.post("/v1/completions", json=values)
    except httpx.HTTPError:
        return 0
    if answer.status_code != 200:
        return 0
    return answer.json()["usage"]["completion_tokens"]


async def load(target: Target, num_clients: int, rounds: int, num_tokens: int) -> Load:
    """Return what `num_clients` see that ask at once, each `rounds` times."""
    seconds: list[float] = []
    tokens: list[int] = []
    headers = {"Authorization": f"Bearer {target.key}"}
    limits = httpx.Limits(max_connections=num_clients)

    async with httpx.AsyncClient(
        base_url=target.url, headers=headers, timeout=SECONDS, limits=limits
    ) as client:

        async def ask_often(number: int) -> None:
            for index in range(rounds):
                started = time.perf_counter()
                tokens.append(await ask(client, target, num_tokens, 1000 * number + index))
                seconds.append(time.perf_counter() - started)

        await ask(client, target, num_tokens, 0)  # what only the first request pays
        started = time.perf_counter()
        await asyncio.gather(*(ask_often(number) for number in range(num_clients)))
        wall = time.perf_counter() - started

    ordered = sorted(seconds)
    return Load(
        len(tokens),
        sum(not count for count in tokens),
        sum(tokens) / wall,
        statistics.median(ordered),
        ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    )


def time_first_token(target: Target) -> float:
    """Return the least seconds of five from a request to the first event of its stream."""
    values = {"model": target.model, "prompt": PROMPT, "max_tokens": 8, "stream": True}
    headers = {"Authorization": f"Bearer {target.key}"}
    best = float("inf")
    with httpx.Client(base_url=target.url, headers=headers, timeout=SECONDS) as client:
        for _ in range(5):
            started = time.perf_counter()
            with client.stream("POST", "/v1/completions", json=values) as answer:
                lines = answer.iter_lines()
                next(lines)
                best = min(best, time.perf_counter() - started)
                list(lines)
    return best


def measure(target: Target, options: Any) -> dict[str, Load]:
    """Return the loads of one client and of many."""
    found = {}
    for number in (1, options.clients):
        rounds = options.rounds * (4 if number == 1 else 1)
        found[str(number)] = asyncio.run(load(target, number, rounds, options.new_tokens))
        print(f"{target.url} {number} clients: {found[str(number)]}", flush=True)
    return found


def measure_ours(options: Any) -> tuple[dict[str, Load], float, float]:
    """Return our loads, the seconds to the first answer, and to a stream's first token."""
    port = find_port()
    target = Target(f"http://127.0.0.1:{port}", secrets.token_urlsafe(16), options.model)
    command = [*LIGHTLM, "serve", "--port", str(port), "--model", options.model]
    with start(command, target, LIGHTLM_API_KEY=target.key) as seconds:
        return measure(target, options), seconds, time_first_token(target)


def has_module(python: str, module: str) -> bool:
    """Return whether a Python has a module."""
    return not subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode


def measure_rival(options: Any) -> tuple[dict[str, Load], float, float]:
    """Return the same of llama.cpp's server."""
    port = find_port()
    target = Target(f"http://127.0.0.1:{port}", "none", "model")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "gguf"
        export = [*LIGHTLM, "export", str(place), "--to", "gguf", "--model", options.model]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        model = str(place / "model.gguf")
        threads = str(options.rival_threads)
        if has_module(options.rival_python, "xllamacpp"):
            command = [options.rival_python, "-c", LLAMA_CPP, model, str(port)]
            command += [str(options.clients), threads]
        else:
            command = [options.rival_python, "-m", "llama_cpp.server", "--model", model]
            command += ["--port", str(port), "--n_ctx", "512", "--n_threads", threads]
            command += ["--model_alias", "model"]
        with start(command, target) as seconds:
            return measure(target, options), seconds, time_first_token(target)


def main() -> None:
    """Measure, compare, report."""
    options = parse_folder(
        __doc__ or "",
        model={"default": "champion", "help": "the version to serve"},
        clients={"type": int, "default": 32},
        rounds={"type": int, "default": 3},
        new_tokens={"type": int, "default": 64},
        rival_python={"default": "", "help": "a Python with xllamacpp"},
        rival_threads={"type": int, "default": os.cpu_count() or 1},
    )
    ours, seconds, first = measure_ours(options)
    rival: dict[str, Load] = {}
    rival_seconds = rival_first = None
    if options.rival_python:
        rival, rival_seconds, rival_first = measure_rival(options)

    one = ours["1"]
    many = ours[str(options.clients)]
    lost = f"requests lost of {many.num_requests}"
    other = rival.get(str(options.clients))
    label = "llama.cpp"
    name = f"{options.clients} clients"
    figures = [
        Figure(
            lost,
            float(many.num_lost),
            "",
            rival=None if other is None else float(other.num_lost),
            rival_name=label,
            is_lower_better=True,
        ),
        Figure(
            f"{name}, all together",
            many.tokens_per_second,
            "tokens/s",
            1.0,
            rival=one.tokens_per_second,
            rival_name="one client",
        ),
    ]

    if other is not None:
        pairs = ((name, many, other), ("one client", one, rival["1"]))
        for words, mine, theirs in pairs:
            for what, unit, is_lower in (
                ("tokens_per_second", "tokens/s", False),
                ("median_seconds", "s (median)", True),
                ("p99_seconds", "s (99 %)", True),
            ):
                figures.append(
                    Figure(
                        words,
                        getattr(mine, what),
                        unit,
                        rival=getattr(theirs, what),
                        rival_name=label,
                        is_lower_better=is_lower,
                    )
                )

    for words, mine, theirs in (
        ("start to first answer", seconds, rival_seconds),
        ("request to first token", first, rival_first),
    ):
        figures.append(
            Figure(words, mine, "s", rival=theirs, rival_name=label, is_lower_better=True)
        )
    details = {
        "ours": {count: found._asdict() for count, found in ours.items()},
        "rival": {count: found._asdict() for count, found in rival.items()},
    }
    print(json.dumps(details, indent=2))
    report("serving", figures, options.out, details)


if __name__ == "__main__":
    main()
