"""A home with two registered versions, and a server of it on a port of this machine."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch

from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.model.config import ModelConfig
from lightlm.model.hugging_face import export_model
from lightlm.model.transformer import Transformer
from lightlm.params import load_params
from lightlm.store.commit import commit_folder
from lightlm.tracking.mlflow_records import find_experiment
from lightlm.tracking.record import RegistrationRequest
from lightlm.tracking.registration import register
from lightlm.tracking.registry import open_client, open_store
from lightlm.tracking.shipper import pin_requirements

SAMPLING = {
    "max_new_tokens": 8, "temperature": 0.8, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.0,
}  # fmt: skip
KEY = "a-key-for-tests"
SECONDS = 60
"""Only bounds a failure."""

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@dataclass(frozen=True)
class Registered:
    """A home whose model `notes` has two versions; the first is champion, the second can chat."""

    home: Path
    folders: tuple[Path, Path]

    def promote(self, version: str) -> None:
        """Move the champion's alias to a version."""
        open_client(self.home).set_registered_model_alias("notes", "champion", version)


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    home: Path
    process: "subprocess.Popen[str]"

    def open_client(self) -> httpx.Client:
        """Return a client that sends the key."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=SECONDS)

    def read_metrics(self) -> dict[str, float]:
        """Return the server's numbers by name and labels."""
        with self.open_client() as client:
            lines = client.get("/metrics").text.splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two tiny models that never end a text by themselves; the second has a template."""
    folder = tmp_path_factory.mktemp("models")
    text = folder / "text.jsonl"
    lines = [{"text": f"the old river {i} walks under stone {i * 7}"} for i in range(60)]
    text.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTLM_HOME", str(folder / "home"))
        subset = materialize_subset(folder / "home", load_params(dataset=str(text)).dataset)
        tokenizer = prepare_tokenizer(folder / "home", load_params().tokenizer, subset, [300])

    def write(seed: int, has_template: bool) -> Callable[[Path], dict[str, int]]:
        config = ModelConfig(
            vocab_size=tokenizer.vocab_size, num_layers=2, model_dim=32, num_heads=2, num_kv_heads=2,
            head_dim=16, ffn_dim=64, context_length=256,
        )  # fmt: skip
        model = Transformer(config)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.copy_(torch.randn(weight.shape, generator=draw) * 0.1)
            # The first entry of each state stays positive, so the end of text is never likely.
            model.embedding *= 10
            model.embedding[:, 0] = 6.0
            assert model.head is not None
            model.head *= 8
            model.head[tokenizer.end_of_text_id] = 0.0
            model.head[tokenizer.end_of_text_id, 0] = -50.0

        def export(temporary: Path) -> dict[str, int]:
            export_model(model, tokenizer.folder, temporary, generation=SAMPLING)
            if has_template:
                (temporary / "chat_template.jinja").write_text(TEMPLATE)
            return {"step": seed}

        return export

    first = commit_folder(folder / "first" / "model", "model", write(1, False)).folder
    return first, commit_folder(folder / "second" / "model", "model", write(2, True)).folder


@pytest.fixture(scope="session")
def registered(
    tmp_path_factory: pytest.TempPathFactory, model_folders: tuple[Path, Path]
) -> Registered:
    """Return a home with two versions, of which the first is champion."""
    home = tmp_path_factory.mktemp("registered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTLM_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client = open_store(home)
        experiment = find_experiment(client, "lightlm", home)
        for folder in model_folders:
            request = RegistrationRequest(
                hf_folder=folder, model_name="notes", promote="better", description="tiny",
                tags={"bits_per_byte": "2.0", "text_sha256": "a" * 64, "dataset": "stories"},
                bits_per_byte=2.0, text_sha256="a" * 64, sampling=SAMPLING, comparison=None,
            )  # fmt: skip
            run = client.create_run(experiment)
            register(client, run.info.run_id, request, pin_requirements())
    return Registered(home, model_folders)


@pytest.fixture(scope="session")
def served(registered: Registered) -> Iterator[Served]:
    """Return a server of that home, started as a person starts it."""
    with start_server(registered.home, "--max-batch", 4, "--max-queue", 8) as server:
        yield server


@contextmanager
def start_server(home: Path, *options: object, registry: str = "") -> Iterator[Served]:
    """Start `lightlm serve`, and stop it at the end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    own = {"LIGHTLM_HOME": str(home), "LIGHTLM_API_KEY": KEY}
    own |= {"MLFLOW_TRACKING_URI": registry} if registry else {}
    words = [str(word) for word in ("serve", "--port", port, *options)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lightlm_flows.cli", *words],
        env=kept | own,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("Serving" in line for line in lines), "it ended"
        yield Served(f"http://127.0.0.1:{port}", home, process)
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)
