"""A tiny model's committed folder, and a recorded run, for the tests of the tracking room."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.evaluation.comparison import Comparison, compare
from lightlm.evaluation.score import DocumentScores
from lightlm.model.config import ModelConfig
from lightlm.model.hugging_face import export_model
from lightlm.model.transformer import Transformer
from lightlm.params import load_params
from lightlm.store.commit import commit_folder
from lightlm.store.home import find_home
from lightlm.tracking.record import RegistrationRequest
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import create_database

SAMPLING = {
    "max_new_tokens": 8,
    "temperature": 0.8,
    "top_k": 50,
    "top_p": 0.95,
    "repetition_penalty": 1.0,
}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    text = folder / "text.jsonl"
    text.write_text(
        "".join(
            json.dumps({"text": f"the old river {i} walks under stone {i * 7}"}) + "\n"
            for i in range(60)
        )
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTLM_HOME", str(folder / "home"))
        subset = materialize_subset(find_home(), load_params(dataset=str(text)).dataset)
        tokenizer = prepare_tokenizer(find_home(), load_params().tokenizer, subset, [280])

    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, num_layers=1, model_dim=16, num_heads=2, num_kv_heads=2, head_dim=8,
        ffn_dim=32, context_length=32,
    )  # fmt: skip
    model = Transformer(config)
    model.initialize(0)

    def write(temporary: Path) -> dict:
        export_model(model, tokenizer.folder, temporary, generation=SAMPLING)
        return {"step": 1}

    return commit_folder(folder / "model", "model", write).folder


@pytest.fixture
def request_for(model_folder: Path) -> Callable[..., RegistrationRequest]:
    def choose(
        bits_per_byte: float = 1.5,
        text_sha256: str = "a" * 64,
        promote: str = "better",
        beats: str | None = None,
    ) -> RegistrationRequest:
        return RegistrationRequest(
            hf_folder=model_folder,
            model_name="lightlm",
            promote=promote,  # pyright: ignore[reportArgumentType]
            description=f"**{bits_per_byte}** bits per byte",
            tags={
                "bits_per_byte": str(bits_per_byte),
                "text_sha256": text_sha256,
                "dataset": "stories",
            },
            bits_per_byte=bits_per_byte,
            text_sha256=text_sha256,
            sampling=SAMPLING,
            comparison=None if beats is None else compared(beats, 1.0, 0.9),
        )

    return choose


def compared(champion: str, old: float, new: float, num_documents: int = 20) -> Comparison:
    """Return the comparison of two models that cost `old` and `new` nats, and a little more for
    longer documents.
    """
    sizes = [10 + index for index in range(num_documents)]
    scores = [
        DocumentScores(nats=[bits * (1 + 1e-3 * n) for n in sizes], num_bytes=sizes)
        for bits in (old, new)
    ]
    found = compare(champion, *scores)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without any run: making one takes two seconds."""
    folder = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        create_database(folder)
    return folder / "mlflow.db"


@pytest.fixture
def database(home: Path, new_database: Path) -> Path:
    """The MLflow database of this test's home."""
    return Path(shutil.copyfile(new_database, home / "mlflow.db"))


@pytest.fixture
def recorded(
    home: Path, database: Path, request_for: Callable[..., RegistrationRequest]
) -> Callable[..., Path]:
    """Return a function that records a whole run under the home and gives its folder."""

    def record(
        key: str = "run-1", steps: int = 30, *, is_finished: bool = True, **request: object
    ) -> Path:
        folder = home / "runs" / key
        folder.mkdir(parents=True)
        recorder = Recorder(folder)
        recorder.start_run(
            f"train-{key}",
            "lightlm",
            {"mlflow.user": "somebody"},
            "still running",
            system_metrics=False,
        )

        recorder.log_params({"training.seed": 0, "plan.model.num_layers": 1})
        recorder.log_dataset(
            {
                "name": "stories",
                "digest": "0123abcd",
                "source": "stories.jsonl",
                "num_documents": 60,
            }
        )

        recorder.log_text('{"plan": 1}', "plan.json")
        for step in range(1, steps + 1):
            recorder.log_metrics(
                {"train/loss": 5.0 / step, "throughput/tokens_per_second": 100.0 + step}, step
            )
            if step % 10 == 0:
                recorder.log_metrics({"validation/bits_per_byte": 2.0 - step / 100}, step)

        if is_finished:
            recorder.describe("done")
            recorder.register(request_for(**request))
            recorder.finish("FINISHED")

        recorder.close()
        return folder

    return record
