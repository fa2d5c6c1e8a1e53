"""Whole runs under kill -9: of the command, of the worker, of all at once, again and again, while
recovering too.
"""

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lightlm.store.commit import open_commit
from lightlm.store.journal import read_journal

KILLS = int(os.environ.get("FAULTS_KILLS", "200"))
"""All in all; FAULTS_KILLS=20 for a quick look."""

SIDE_BY_SIDE = 3
"""Runs at a time: much of a run is waiting."""

PATIENCE_SECONDS = 300.0

CHAIN = 5
LONG_CHAIN = 20
"""Kills of one run, until it may end."""

NANO: dict[str, Any] = {
    "budget.planner": "manual",
    "budget.max_steps": 60,
    "tokenizer.vocab_size": 300,
    "model.num_layers": 1,
    "model.model_dim": 32,
    "model.num_heads": 2,
    "model.num_kv_heads": 1,
    "model.ffn_dim": 64,
    "model.context_length": 32,
    "training.batch_tokens": 128,
    "training.micro_batch_size": 1,
    "training.dtype": "float32",
    "training.compile": "off",
    "training.device": "cpu",
    "training.num_threads": 1,
    "training.weight_decay": 0.1,
    "training.dropout": 0.1,
    "training.num_checkpoints": 6,
    "tracking.system_metrics": False,
    "system.min_available_memory_bytes": 0,
    "system.min_free_disk_bytes": 0,
}


class Zygote:
    """The fork server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = folder / "template"
        self.template.mkdir(parents=True)
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))
        }

        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("run_zygote.py")), str(self.template)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "zygote.log").open("wb"),
            env=kept | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            text=True,
        )

        self.read()
        self.lock = threading.Lock()
        self.count = 0
        self.waiting: dict[int, Future[dict[str, Any]]] = {}
        threading.Thread(target=self.dispatch, daemon=True).start()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.folder / "zygote.log").read_text()[-3000:]
        return json.loads(line)

    def new_home(self, name: str) -> Path:
        """Return a home with an empty MLflow database, whose making takes seconds."""
        home = self.folder / name
        home.mkdir(mode=0o700)
        shutil.copy(self.template / "mlflow.db", home / "mlflow.db")
        return home

    def run(
        self, home: Path, text: Path, who: str | None = None, after: float = 0.0
    ) -> dict[str, Any]:
        """Run the command once, and kill `who` after so many seconds; several may run
        side by side.
        """
        request = {
            "home": str(home),
            "text": str(text),
            "overrides": NANO,
            "log": str(home / "command.log"),
        }

        future: Future[dict[str, Any]] = Future()
        with self.lock:
            number = self.count = self.count + 1
            self.waiting[number] = future
            assert self.process.stdin is not None
            self.process.stdin.write(
                json.dumps(request | {"id": number, "who": who, "after": after}) + "\n"
            )
            self.process.stdin.flush()

        return future.result(PATIENCE_SECONDS)

    def dispatch(self) -> None:
        """Give each answer to whom it is for."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            self.waiting.pop(answer["id"]).set_result(answer)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    choose = random.Random(0)
    words = (
        "river lantern teacher mountain engine garden letter winter captain window harbour story"
    ).split()
    path = tmp_path_factory.mktemp("text") / "words.txt"
    lines = (" ".join(choose.choice(words) for _ in range(30)) + ".\n\n" for _ in range(200))
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    server = Zygote(tmp_path_factory.mktemp("zygote"))
    yield server
    server.close()


def find_run(home: Path) -> Path:
    """Return the one run's folder; one without a journal of decisions was killed before its run
    began.
    """
    (run,) = {journal.parent for journal in (home / "runs").glob("*/run-*.journal")}
    return run


def hash_weights(home: Path) -> str:
    """Return the digest of the one run's published weights; everything that is committed
    verifies.
    """
    run = find_run(home)
    commit = open_commit(run / "model", "model")
    for manifest in (home / "store").rglob("manifest.json"):
        open_commit(manifest.parent)
    return hashlib.sha256((commit.folder / "model.safetensors").read_bytes()).hexdigest()


def list_told(home: Path) -> tuple[list[str], int, list[int]]:
    """Return the states of MLflow's runs, the number of versions, and the steps whose
    loss it has.
    """
    with sqlite3.connect(home / "mlflow.db") as database:
        states = [row[0] for row in database.execute("select status from runs")]
        (versions,) = database.execute("select count(*) from model_versions").fetchone()
        steps = [
            row[0]
            for row in database.execute(
                "select step from metrics where key = 'train/loss' order by step"
            )
        ]
    return states, versions, steps


def check(home: Path, wanted: str) -> None:
    """The run ended as one that was never killed."""
    assert hash_weights(home) == wanted
    states, versions, steps = list_told(home)
    assert states == ["FINISHED"]
    assert versions == 1
    assert steps == sorted(set(steps))
    assert steps[-1] == NANO["budget.max_steps"]
    run = find_run(home)
    spent = [record["seconds"] for record, _ in read_journal(run / "budget.journal")]
    assert spent == sorted(spent)
    assert not (run / "checkpoints").exists()


@dataclass
class Chain:
    """The kills of one run, drawn beforehand: who, and after what fraction of an
    undisturbed run.
    """

    name: str
    kills: list[tuple[str, float]]
    struck: list[str] = field(default_factory=list)


def draw_chains(draw: random.Random, left: int, number: int) -> list[Chain]:
    """Return chains of `left` kills in all, numbered from `number`; the very first is a
    long one.
    """
    chains: list[Chain] = []
    while left > 0:
        length = min(left, CHAIN if chains or number else LONG_CHAIN)
        # Recovery is shorter than a first run: the instants are drawn from both.
        kills = [
            (
                draw.choice(("command", "command", "all", "all", "worker")),
                draw.random() * draw.choice((0.3, 0.6, 1.0)),
            )
            for _ in range(length)
        ]
        chains.append(Chain(f"run-{number + len(chains)}", kills))
        left -= length

    return chains


def follow(zygote: Zygote, text: Path, chain: Chain, wanted: str, seconds: float) -> None:
    """Kill one run as often as the chain says, let it end, and check what it left."""
    home = zygote.new_home(chain.name)
    code = None
    for who, fraction in chain.kills:
        ended = zygote.run(home, text, who, fraction * seconds)
        code = ended["code"]
        chain.struck += [who] if ended["struck"] else []
        if code == 0:
            break

    if code != 0:
        code = zygote.run(home, text)["code"]

    assert code == 0, f"{chain}: {(home / 'command.log').read_text()[-3000:]}"
    check(home, wanted)
    while home.exists():  # a process that was orphaned may still be writing its last words
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.timeout(1500)
def test_killed_anywhere_the_same_command_ends_with_the_same_weights(
    zygote: Zygote, text: Path, draw: random.Random, tell: Callable[[str], None]
) -> None:
    reference = zygote.new_home("reference")
    ended = zygote.run(reference, text)
    assert ended["code"] == 0, (reference / "command.log").read_text()[-3000:]
    wanted = hash_weights(reference)
    seconds = ended["seconds"]
    check(reference, wanted)
    done: list[Chain] = []

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        # A run that ends before its chain does leaves kills over: further chains take them.
        while (left := KILLS - sum(len(chain.struck) for chain in done)) > 0:
            chains = draw_chains(draw, left, len(done))
            list(pool.map(lambda chain: follow(zygote, text, chain, wanted, seconds), chains))
            done += chains

    struck = Counter(who for chain in done for who in chain.struck)
    counted = (
        f"{sum(struck.values())} kills {dict(struck)} over {len(done)} runs of {seconds:.1f} s"
    )
    tell(f"{counted}: 0 lost, 0 corrupt, all final weights equal")
