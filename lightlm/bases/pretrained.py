"""A base: a pretrained model in one layout, its origin and license next to it.

Its folder holds config.json, model.safetensors, the base's own tokenizer and base.json.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from lightlm.data.tokenization.tokenizer import BASE_FILE, LOSSLESS_FILE
from lightlm.errors import ModelVersionError
from lightlm.model.config import ModelConfig
from lightlm.model.families import FAMILIES, read_config
from lightlm.params import describe_validation

KIND = "bases"
"""Kind of the stage folders that hold bases."""

WEIGHTS_FILE = "model.safetensors"

OWN_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""Files of a base that a model trained from it keeps as they are, or as far as they still fit."""

LIST = "Qwen3, Qwen3-MoE, Llama (SmolLM2, TinyLlama, Llama 3) and Qwen2 / Qwen2.5"
"""The families, for messages."""


class Origin(BaseModel, frozen=True, extra="ignore"):
    """Where a base is from: `id` names it for people, `digest` is the SHA-256 of its files."""

    kind: Literal["hub", "folder", "gguf", "version"]
    id: str
    revision: str = ""
    digest: str = ""
    license: str = ""
    languages: tuple[str, ...] = ()
    end_of_text: str
    """The token that ends each document in training."""
    notes: tuple[str, ...] = ()

    def tags(self) -> dict[str, str]:
        """Return the tags of a version that was trained from it."""
        values = {
            "base_model": self.id,
            "base_revision": self.revision,
            "base_digest": self.digest,
            "base_license": self.license,
        }
        return {name: value for name, value in values.items() if value}


class Base(BaseModel, frozen=True):
    """A base in its committed folder. `kind`: of that commit."""

    folder: Path
    origin: Origin
    model: ModelConfig


def read_origin(folder: Path) -> Origin | None:
    """Return what base.json says; None where the folder has none.

    Raises:
        ModelVersionError: it cannot be read.
    """
    path = folder / BASE_FILE
    if not path.is_file():
        return None
    try:
        return Origin.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = describe_validation(error) if isinstance(error, ValidationError) else str(error)
        raise ModelVersionError(
            f"{path} cannot be read ({reason}); remove the folder and give the base again"
        ) from None


def open_base(folder: Path) -> Base:
    """Return the base of a committed folder."""
    origin = read_origin(folder)
    if origin is None:
        raise ModelVersionError(f"{folder} holds no {BASE_FILE}; give the base again")
    return Base(folder=folder, origin=origin, model=read_config(folder))


def refuse_family(got: Any, path: Path) -> ModelVersionError:
    """Return the error about a family that LightLM does not compute."""
    return ModelVersionError(
        f"{path} is of the family {got!r}; LightLM starts from {LIST} "
        f"({', '.join(FAMILIES)}); give one of these"
    )


def check_shapes(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Compare by arithmetic, before memory is asked for; what is there in addition is left out.

    Raises:
        ModelVersionError: naming the first weight that is missing or of another shape.
    """
    for name, shape in wanted.items():
        if found.get(name) != shape:
            raise ModelVersionError(
                f"{path}: {name} has shape {found.get(name)}, but its config wants {shape}; "
                "download it again"
            )


__all__ = ["BASE_FILE", "LOSSLESS_FILE", "Base", "Origin", "open_base", "read_origin"]
