"""Tests of the registered model as MLflow serves it: it needs nothing of LightLM, and takes params."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from mlflow.exceptions import MlflowException

from lightlm.tracking.outbox import Outbox
from lightlm.tracking.pyfunc_model import check_params, read_prompts
from lightlm.tracking.registry import tracking_uri

PREDICT = """
import sys
sys.path = [p for p in sys.path if p and p != sys.argv[2]]
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lightlm", "flows"):
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


def test_the_version_is_loaded_and_asked_without_lightlm(home: Path, recorded: Callable[..., Path]) -> None:
    outbox = Outbox.start(recorded("run-1", steps=2))
    assert outbox.wait_for_version(60) is not None
    outbox.close()
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, tracking_uri(home), str(Path(__file__).resolve().parents[2])],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
        cwd=home,capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("fine\n")


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
def test_a_param_out_of_its_limits_is_refused_as_a_mistake_of_who_asks(name: str, value: object, limits: str) -> None:
    with pytest.raises(MlflowException, match=f"{name} is {value}; give a value from {limits}") as caught:
        check_params({name: value})
    assert caught.value.get_http_status_code() == 400


@pytest.mark.parametrize("prompts", [[None], ["fine", 5], pandas.DataFrame({"prompt": ["fine", float("nan")]})])
def test_a_prompt_that_is_no_text_is_refused_and_not_spelled_out(prompts: object) -> None:
    with pytest.raises(MlflowException, match="give a text") as caught:
        read_prompts(prompts)
    assert caught.value.get_http_status_code() == 400
