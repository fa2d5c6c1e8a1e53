"""Tests of the registered model as MLflow serves it: it needs nothing of LightLM, and
takes params.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from mlflow.exceptions import MlflowException

from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.generation.sampling import check_sampling
from lightlm.generation.text import load_generator
from lightlm.ngram import mixture
from lightlm.ngram.counts import count_grams
from lightlm.store.commit import commit_folder
from lightlm.tracking.outbox import Outbox
from lightlm.tracking.pyfunc_model import TextGenerator, check_params, read_prompts
from lightlm.tracking.registration import MIXTURE
from lightlm.tracking.registry import tracking_uri
from tests.tracking.conftest import SAMPLING

PREDICT = """
import sys
sys.path = [p for p in sys.path if p and p != sys.argv[2]]
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lightlm", "lightlm_flows"):
            raise ImportError("not here")
sys.meta_path.insert(0, Refuse())
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/lightlm@champion")
greedy = {"temperature": 0.0, "max_new_tokens": 6}
assert model.predict(["the old river"], params=greedy) == model.predict(["the old river"], params=greedy)
plain = model.predict(["the old river"], params=greedy)
assert model.predict(["the old river"], params=greedy | {"repetition_penalty": 50.0}) != plain
seeded = {"seed": 3, "max_new_tokens": 6}
first, second = (model.predict(["the old", "stone " * 50], params=seeded) for _ in range(2))
assert first == second and len(first) == 2 and all(isinstance(text, str) for text in first)
assert len(model.predict(["the old"], params={"max_new_tokens": 1})[0]) <= 12
import pandas
table = pandas.DataFrame({"prompt": ["the old", "river"]})
assert model.predict(table, params=seeded) == model.predict(["the old", "river"], params=seeded)
assert model.predict(["the old"], params=seeded) != model.predict(["the old"], params=seeded | {"seed": 4})
assert model.metadata.signature.params.to_dict()
assert not any(name.partition(".")[0] == "lightlm" for name in sys.modules)
print("fine")
"""


def test_the_version_is_loaded_and_asked_without_lightlm(
    home: Path, recorded: Callable[..., Path]
) -> None:
    outbox = Outbox.start(home, recorded("run-1", steps=2))
    assert outbox.wait_for_version(60) is not None
    outbox.close(60.0)
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, tracking_uri(home), str(Path(__file__).resolve().parents[2])],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
        cwd=home,capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("fine\n")


def flip_weights(folder: Path) -> str:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[0] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    return "model.safetensors"


def lose_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return "its manifest"


def lose_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "its manifest"


def garble_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text('{"files": ["config.json"]}')
    return "its manifest"


def add_code(folder: Path) -> str:
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    return "modeling_evil.py"


@pytest.mark.parametrize(
    "damage", [flip_weights, lose_tokenizer, lose_manifest, garble_manifest, add_code]
)
def test_mlflows_server_refuses_a_damaged_model_before_it_is_parsed(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], str],
) -> None:
    import transformers

    def parse(*_: object) -> None:
        raise AssertionError("a damaged file was parsed")

    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    TextGenerator().load_context(SimpleNamespace(artifacts={"model": str(folder)}))
    what = damage(folder)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", parse)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", parse)
    with pytest.raises(MlflowException, match=f"is not as it was registered: {re.escape(what)}"):
        TextGenerator().load_context(SimpleNamespace(artifacts={"model": str(folder)}))


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("temperature", -1.0, "0.0 to 100.0"),
        ("temperature", float("nan"), "0.0 to 100.0"),
        ("temperature", None, "0.0 to 100.0"),
        ("top_p", 2.0, "1e-06 to 1.0"),
        ("top_k", -1, "0 to 1048576"),
        ("max_new_tokens", -5, "1 to 1000000"),
        ("seed", 2**70, "-1 to 9223372036854775807"),
    ],
)
def test_a_param_out_of_its_limits_is_refused_as_a_mistake_of_who_asks(
    name: str, value: object, limits: str
) -> None:
    with pytest.raises(
        MlflowException, match=f"{name} is {value}; give a value from {limits}"
    ) as caught:
        check_params({name: value})
    assert caught.value.get_http_status_code() == 400


@pytest.mark.parametrize(
    "prompts", [[None], ["fine", 5], pandas.DataFrame({"prompt": ["fine", float("nan")]})]
)
def test_a_prompt_that_is_no_text_is_refused_and_not_spelled_out(prompts: object) -> None:
    with pytest.raises(MlflowException, match="give a text") as caught:
        read_prompts(prompts)
    assert caught.value.get_http_status_code() == 400


def test_a_model_with_count_tables_is_served_with_them(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(model_folder)
    ids = np.asarray(tokenizer.encode("the old river walks under stone " * 50), dtype=np.uint16)

    def write(folder: Path) -> dict:
        for path in model_folder.glob("*.json"):
            if path.name != "manifest.json":
                shutil.copyfile(path, folder / path.name)
        shutil.copyfile(model_folder / "model.safetensors", folder / "model.safetensors")
        (folder / mixture.FOLDER).mkdir()
        count_grams(ids, tokenizer.vocab_size).write(folder / mixture.FOLDER)
        mixture.write_gate(folder / mixture.FOLDER, np.full(mixture.NUM_FEATURES, -1.0))
        return {}

    folder = commit_folder(tmp_path / "model", "model", write).folder
    monkeypatch.syspath_prepend(str(MIXTURE.parent))  # where MLflow has put it
    served = TextGenerator()
    served.load_context(SimpleNamespace(artifacts={"model": str(folder)}))
    greedy = {"temperature": 0.0, "max_new_tokens": 12}
    wanted = load_generator(folder).generate(
        ["the old"], check_sampling(SAMPLING | greedy | {"seed": None})
    )
    assert served.predict(None, ["the old"], greedy) == [wanted[0].text]
    assert wanted[0].text.startswith(" river walks under")
