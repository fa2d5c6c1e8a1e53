"""An approved plan as choices: what was shown and agreed to is what `train` is told, and so what is
trained.
"""

from collections.abc import Mapping
from typing import Any

from lightlm.budget.plan import Plan
from lightlm.data.files.local_path import PYTHON_DOCS

SHAPE = (
    "num_layers",
    "model_dim",
    "num_heads",
    "num_kv_heads",
    "ffn_dim",
    "context_length",
    "tie_embeddings",
)
"""Params of the section model that an approved plan fixes."""

RECIPE = ("batch_tokens", "dropout", "weight_decay")
"""Params of the section training that it fixes, too; speed, rates and threads follow the machine as
it is then.
"""

VOCABULARY = "tokenizer.vocab_size"

FIXED = frozenset(
    (VOCABULARY, *(f"model.{name}" for name in SHAPE), *(f"training.{name}" for name in RECIPE))
)
"""All dotted names that an approved plan fixes."""


def fix_plan(plan: Plan) -> dict[str, Any]:
    """Return the choices by which `train` trains this plan's model in the same way."""
    fixed: dict[str, Any] = {f"model.{name}": getattr(plan.model, name) for name in SHAPE}
    fixed |= {f"training.{name}": getattr(plan.trainer, name) for name in RECIPE}
    return fixed | {VOCABULARY: plan.model.vocab_size}


def take_text(choices: Mapping[str, Any], learnt: str, *, is_replaced: bool) -> dict[str, Any]:
    """Return the choices with the data set that was really read: the built-in one, where the Hub
    was out of reach.
    """
    if not is_replaced or learnt != PYTHON_DOCS:
        return dict(choices)
    return dict(choices) | {
        "dataset.source": PYTHON_DOCS,
        "dataset.config": None,
        "dataset.revision": None,
    }


def free_plan(choices: Mapping[str, Any], approved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choices without what an approved plan fixed and nobody has changed since."""
    return {
        name: value
        for name, value in choices.items()
        if name not in FIXED or name not in approved or approved[name] != value
    }
