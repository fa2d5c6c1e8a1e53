"""The registered model as an MLflow pyfunc around its Hugging Face folder.

MLflow copies this file next to the model and runs it wherever the model is loaded, so it imports
only what the model's own requirements name, and nothing of LightLM.
"""

import hashlib
import importlib
import json
import os
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

LIMITS = {
    "max_new_tokens": (1, 1_000_000),
    "temperature": (0.0, 100.0),
    "top_k": (0, 1_048_576),
    "top_p": (1e-6, 1.0),
    "repetition_penalty": (1e-6, 100.0),
    "seed": (-1, 2**63 - 1),
}
"""Least and greatest value of each param; others are refused before the model runs."""


class TextGenerator(PythonModel):
    """Continues prompts. Input: a list of texts, or a table whose first column (or `prompt`) holds
    them.
    """

    def load_context(self, context) -> None:  # noqa: ANN001  (MLflow drops params when predict has type hints)
        """Load model and tokenizer from the folder, its files verified first; no network."""
        folder = Path(context.artifacts["model"])
        verify(folder)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.mixture = open_tables(folder)

    def predict(self, context, model_input, params=None):  # noqa: ANN001, ANN201  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the continuation of every prompt, prompts left out."""
        import torch

        values = check_params(params or {})
        if (seed := values.pop("seed", -1)) >= 0:
            torch.manual_seed(seed)

        if values.get("temperature", 1.0) == 0:
            for name in ("temperature", "top_k", "top_p"):
                values.pop(name, None)
            values["do_sample"] = False
        else:
            values["do_sample"] = True

        return [self._continue(prompt, values) for prompt in read_prompts(model_input)]

    def _continue(self, prompt, values):  # noqa: ANN001, ANN202
        import torch

        start = self.tokenizer(prompt)["input_ids"] or [self.tokenizer.eos_token_id]
        room = self.model.config.max_position_embeddings
        wanted = int(values.get("max_new_tokens", 128))
        # A long prompt keeps its end: half of the context, or more where less is to be written.
        kept = min(len(start), max(room // 2, room - wanted))
        values = values | {"max_new_tokens": max(1, min(wanted, room - kept))}
        ids = torch.tensor([start[-kept:]])

        with torch.inference_mode():
            output = self.model.generate(  # pyright: ignore[reportAttributeAccessIssue]
                ids,
                attention_mask=torch.ones_like(ids),
                logits_processor=self._list_processors(),
                **values,
            )

        return self.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)

    def _list_processors(self):  # noqa: ANN202
        """Return what mixes the counts into a network's logits, before temperature and the like."""
        mixture = self.mixture
        if mixture is None:
            return []

        import torch

        def mix(ids, logits):  # noqa: ANN001, ANN202
            contexts = [mixture.read(row) for row in ids.tolist()]
            known = logits[:, : mixture.model.vocab_size]
            mixed = torch.full_like(logits, float("-inf"), dtype=torch.float32)
            mixed[:, : known.shape[1]] = torch.from_numpy(
                mixture.mix(known.float().numpy(), contexts)
            )
            return mixed

        return [mix]


def open_tables(folder):  # noqa: ANN001, ANN201
    """Return the mixture with the count tables of a model's folder; None where it has none."""
    if not (folder / "ngram").is_dir():
        return None
    # The file lies next to the model: MLflow puts its folder on the path.
    return importlib.import_module("mixture").open_mixture(folder)


def verify(folder):  # noqa: ANN001, ANN201
    """Refuse a folder whose files are not exactly those that its manifest names, before anything
    parses them.

    Raises:
        MlflowException: a file is missing, changed, or unknown.
    """
    try:
        named = json.loads((folder / "manifest.json").read_bytes())["files"]
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in named}
        wrong = [name for name in named if digests[name] != named[name]["sha256"]]
        there = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
        }
        wrong += sorted(
            name
            for name in there - {*named, "manifest.json"}
            if not Path(name).name.startswith(".")
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        wrong = [f"its manifest ({error})"]

    if wrong:
        raise MlflowException(
            f"{folder} is not as it was registered: {', '.join(wrong)}; fetch or register it again"
        )


def check_params(params):  # noqa: ANN001, ANN201
    """Return the params as a dict of their own.

    Raises:
        MlflowException: one is out of its limits; a server answers it with status 400.
    """
    for name, (least, most) in LIMITS.items():
        # MLflow lets null through whatever the type.
        if name in params and (params[name] is None or not least <= params[name] <= most):
            message = f"{name} is {params[name]}; give a value from {least} to {most}"
            raise MlflowException.invalid_parameter_value(message)
    return dict(params)


def read_prompts(model_input):  # noqa: ANN001, ANN201
    """Return the texts of what MLflow hands over: a table, an array, a list, or one text.

    Raises:
        MlflowException: one is no text. MLflow's server has made texts of JSON's numbers and nulls
            by then.
    """
    if isinstance(model_input, str):
        return [model_input]
    if hasattr(model_input, "columns"):
        column = "prompt" if "prompt" in model_input.columns else model_input.columns[0]
        model_input = model_input[column]
    elif isinstance(model_input, dict):
        model_input = next(iter(model_input.values()))

    prompts = list(model_input)
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise MlflowException.invalid_parameter_value(f"a prompt is {prompt}; give a text")

    return prompts


set_model(TextGenerator())
