"""A thousand mutations of each kind of file that the store keeps: all are refused before anybody
parses a byte.
"""

import io
import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
import safetensors.torch
import tokenizers
import torch

from lightlm.data.shards import open_shards, tokenize_subset
from lightlm.data.subset import materialize_subset, open_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.errors import ModelVersionError, StoreError
from lightlm.model.config import ModelConfig
from lightlm.model.hugging_face import export_model, load_model
from lightlm.params import load_params
from lightlm.store.commit import commit_folder, open_commit
from lightlm.store.home import find_home
from lightlm.store.journal import Journal, read_journal
from lightlm.tracking.record import RegistrationRequest
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import ModelVersion, create_database, download, open_client
from lightlm.tracking.shipper import Shipper
from lightlm.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from lightlm.training.config import TrainerConfig
from lightlm.training.device import build_model
from lightlm.training.optimizer import Optimizer

MUTATIONS = 1000
BLOCK = 512

KINDS = (
    "flip", "flip", "truncate", "zeros", "garbage", "longer", "swap", "empty", "gone", "other name", "code",
    "another's",
)  # fmt: skip
CANARY = "canary"

Open = Callable[[Path], object]


class Gadget:
    """What makes the file of its name when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # pyright: ignore[reportReturnType]


def write_gadgets(canary: Path) -> list[bytes]:
    """Return files that run code when somebody opens them in the wrong way."""
    saved = io.BytesIO()
    array = io.BytesIO()
    torch.save({"weights": Gadget(canary)}, saved)
    numpy.save(array, numpy.array([Gadget(canary)], dtype=object), allow_pickle=True)
    yaml = (
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path "
        f"[{canary}]]\n"
    )

    return [
        pickle.dumps(Gadget(canary)),
        pickle.dumps(Gadget(canary), protocol=0),
        saved.getvalue(),
        array.getvalue(),
        yaml.encode(),
        f"__import__('pathlib').Path({str(canary)!r}).touch()\n".encode(),
    ]


def test_the_gadgets_would_run_code_if_somebody_unpickled_them(tmp_path: Path) -> None:
    for number, load in enumerate((pickle.loads, pickle.loads)):
        load(write_gadgets(tmp_path / str(number))[number])
        assert (tmp_path / str(number)).exists()
    torch.load(io.BytesIO(write_gadgets(tmp_path / "torch")[2]), weights_only=False)
    numpy.load(io.BytesIO(write_gadgets(tmp_path / "numpy")[3]), allow_pickle=True)
    exec(write_gadgets(tmp_path / "python")[5])
    assert {"torch", "numpy", "python"} <= {path.name for path in tmp_path.iterdir()}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Open]]]:
    """Make one of each kind by the real code; return the folder of each, and what opens it."""
    root = tmp_path_factory.mktemp("kept")
    lines = [
        f"{n} little birds sat on {n + 1} old walls; {n % 3} flew away, and the rest sang."
        for n in range(80)
    ]
    (root / "lines.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTLM_HOME", str(root / "home"))
        params = load_params(
            overrides={"dataset.validation_fraction": 0.2}, dataset=str(root / "lines.jsonl")
        )
        subset = materialize_subset(find_home(), params.dataset)
        tokenizer = prepare_tokenizer(find_home(), params.tokenizer, subset, [280])
        shards = tokenize_subset(find_home(), subset, tokenizer)

    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, num_layers=1, model_dim=16, num_heads=2, num_kv_heads=1, head_dim=8,
        ffn_dim=32, context_length=16,
    )  # fmt: skip
    trainer = TrainerConfig(batch_tokens=64, micro_batch_size=4)
    model = build_model(config, trainer)
    optimizer = Optimizer(model, trainer)
    checkpoint = save_checkpoint(root / "checkpoints", model, optimizer, TrainingState(step=7))

    def write(folder: Path) -> dict[str, object]:
        export_model(model, tokenizer.folder, folder)
        return {"step": 7}

    registered = commit_folder(root / "model", "model", write).folder
    yield {
        "checkpoint": (checkpoint, lambda folder: load_checkpoint(folder, model, optimizer)),
        "shards": (shards.folder, open_shards),
        "subset": (subset.folder, open_subset),
        "tokenizer": (
            tokenizer.folder,
            lambda folder: tokenizers.Tokenizer.from_file(str(read(folder, "tokenizers"))),
        ),
        "registered model": (
            registered,
            lambda folder: load_model(open_commit(folder, "model").folder),
        ),
    }


def read(folder: Path, kind: str) -> Path:
    """Return the tokenizer's file of a stage that verifies."""
    return open_commit(folder, kind).folder / "tokenizer.json"


def mutate(folder: Path, rng: random.Random) -> str:
    """Damage one file of a folder; return what was done."""
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size))
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    kind = rng.choice(KINDS)

    if kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del content[at:]
    elif kind in ("zeros", "garbage"):
        length = len(content[at : at + BLOCK])
        content[at : at + BLOCK] = bytes(length) if kind == "zeros" else rng.randbytes(length)
    elif kind == "longer":
        content += rng.randbytes(rng.randrange(1, BLOCK))
    elif kind == "swap":
        content = content[at:] + content[:at]
    elif kind == "empty":
        content.clear()
    elif kind == "code":
        content = bytearray(rng.choice(write_gadgets(folder.parent / CANARY)))
    elif kind == "another's":
        others = sorted(p for p in folder.rglob("*") if p.is_file() and p != path)
        content = bytearray(rng.choice(others).read_bytes()) if others else content[::-1]

    if kind == "gone":
        path.unlink()
    elif kind == "other name":
        path.rename(path.with_name("renamed"))
    elif bytes(content) == path.read_bytes():
        return mutate(folder, rng)
    else:
        path.write_bytes(bytes(content))

    return f"{kind} in {path.name} at {at}"


@pytest.mark.parametrize(
    "kind", ["checkpoint", "shards", "subset", "tokenizer", "registered model"]
)
def test_every_mutation_of_what_is_kept_is_refused_before_it_is_parsed(
    kind: str,
    kept: dict[str, tuple[Path, Open]],
    tmp_path: Path,
    draw: random.Random,
    tell: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, open_it = kept[kind]
    open_it(folder)
    parsed: list[str] = []

    def parse(*given: object, **named: object) -> None:
        parsed.append(str(given))
        raise AssertionError("a damaged file was parsed")

    for place in ("safetensors.torch.load_file", "lightlm.training.checkpoint.safe_open"):
        monkeypatch.setattr(place, parse)
    assert safetensors.torch.load_file is parse
    accepted = []

    for _ in range(MUTATIONS):
        shutil.copytree(folder, tmp_path / "damaged")
        what = mutate(tmp_path / "damaged", draw)
        try:
            open_it(tmp_path / "damaged")
        except StoreError:
            pass
        else:
            accepted.append(what)
        shutil.rmtree(tmp_path / "damaged")

    tell(f"{MUTATIONS} mutations, {len(accepted)} accepted, {len(parsed)} parsed")
    assert accepted == []
    assert parsed == []
    assert not (tmp_path / CANARY).exists(), "nothing ran"


@pytest.fixture
def version(home: Path, kept: dict[str, tuple[Path, Open]]) -> tuple[ModelVersion, Path]:
    """Register the model with a real MLflow; return its version and its artifact there."""
    create_database(home)
    recorder = Recorder(home / "runs" / "run")
    recorder.start_run("run", "lightlm", {}, "", system_metrics=False)
    request = {
        "hf_folder": kept["registered model"][0],
        "model_name": "lightlm",
        "promote": "always",
        "tags": {},
    }

    figures = {
        "bits_per_byte": 1.5,
        "text_sha256": "a" * 64,
        "sampling": {"max_new_tokens": 8},
        "description": "",
    }

    recorder.register(RegistrationRequest.model_validate(request | figures))
    recorder.finish("FINISHED")
    recorder.close()
    shipper = Shipper(home / "runs" / "run", open_client(home), home)
    shipper.ship()
    (artifact,) = (path.parent for path in (home / "mlartifacts").rglob("model/manifest.json"))

    return shipper.state.version, artifact


@pytest.mark.timeout(3600)
def test_every_mutation_of_what_mlflow_stores_is_refused_and_of_the_copy_is_fetched_again(
    version: tuple[ModelVersion, Path],
    tmp_path: Path,
    draw: random.Random,
    tell: Callable[[str], None],
) -> None:
    described, artifact = version
    shutil.copytree(artifact, tmp_path / "sound")
    copy = download(find_home(), described)
    accepted = []
    wrong = []

    for number in range(MUTATIONS):
        damaged = copy if number % 2 else artifact
        what = mutate(damaged, draw)
        if damaged is artifact:
            shutil.rmtree(copy)
            try:
                download(find_home(), described)
            except ModelVersionError:
                pass
            else:
                accepted.append(what)
            shutil.rmtree(artifact)
            shutil.copytree(tmp_path / "sound", artifact)
        # What is wrong in the copy goes, and the sound one comes from MLflow.
        if read_all(download(find_home(), described)) != read_all(tmp_path / "sound"):
            wrong.append(what)

    tell(
        f"{MUTATIONS // 2} mutations in MLflow, {len(accepted)} accepted; as many of the copy, "
        f"{len(wrong)} used"
    )
    assert accepted == wrong == []
    assert not list(tmp_path.rglob(CANARY)), "nothing ran"


def read_all(folder: Path) -> dict[str, bytes]:
    """Return the files of a model; the manifest of a copy has a meta of its own."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"
    }


def test_no_mutation_of_a_journal_gives_a_record_that_nobody_wrote(
    tmp_path: Path, draw: random.Random, tell: Callable[[str], None]
) -> None:
    folder = tmp_path / "kept"
    journal = Journal(folder / "journal")
    for number in range(60):
        journal.append({"number": number, "text": "x" * draw.randrange(80)})
    journal.close()
    written = [record for record, _ in read_journal(folder / "journal")]
    forged = []
    lost = 0
    damaged = 0

    while damaged < MUTATIONS:
        shutil.copytree(folder, tmp_path / "damaged")
        what = mutate(tmp_path / "damaged", draw)
        if (tmp_path / "damaged" / "journal").exists():
            found = [record for record, _ in read_journal(tmp_path / "damaged" / "journal")]
            damaged += 1
            lost += len(written) - len(found)
            forged += [what for record in found if record not in written]
        shutil.rmtree(tmp_path / "damaged")

    tell(
        f"{damaged} mutations of a file that is there, {len(forged)} records forged, "
        f"{lost / damaged:.1f} of 60 lost"
    )
    assert forged == []
