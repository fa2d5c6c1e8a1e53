"""An approved plan as choices, so that exactly what was agreed to is trained."""

from lightlm.budget.plan import Plan
from lightlm.data.files.local_path import PYTHON_DOCS
from lightlm.params import Overrides

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
"""Training params that the approval fixes; speed, rates and threads follow the machine."""

VOCABULARY = "tokenizer.vocab_size"

FIXED = frozenset(
    (VOCABULARY, *(f"model.{name}" for name in SHAPE), *(f"training.{name}" for name in RECIPE))
)
"""All dotted names that an approved plan fixes."""


def fix_plan(plan: Plan) -> Overrides:
    """Return the choices by which `train` trains this plan's model in the same way."""
    fixed: Overrides = {f"model.{name}": getattr(plan.model, name) for name in SHAPE}
    fixed |= {f"training.{name}": getattr(plan.trainer, name) for name in RECIPE}
    return fixed | {VOCABULARY: plan.model.vocab_size}


def take_text(choices: Overrides, learned: str, *, is_replaced: bool) -> Overrides:
    """Return the choices with the data set that was really read; python-docs without the Hub."""
    if not is_replaced or learned != PYTHON_DOCS:
        return dict(choices)
    return dict(choices) | {
        "dataset.source": PYTHON_DOCS,
        "dataset.config": None,
        "dataset.revision": None,
    }


def free_plan(choices: Overrides, approved: Overrides) -> Overrides:
    """Return the choices without what an approved plan fixed and the user left unchanged."""
    return {
        name: value
        for name, value in choices.items()
        if name not in FIXED or name not in approved or approved[name] != value
    }
