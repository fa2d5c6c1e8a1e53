"""Shapes compiled on this machine before: compiling them again takes seconds, not half a minute."""

import hashlib
import json
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, TypeAdapter

from lightlm.model.config import ModelConfig
from lightlm.store.remembered import Remembered
from lightlm.training.config import TrainerConfig

REMEMBERED = 200

Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class CompiledShapes:
    """The fingerprints of compiled layers, next to the compiler's own cache under LIGHTLM_HOME."""

    def __init__(self, home: Path) -> None:
        self.path = home / "cache" / "compiled.json"
        self._names = Remembered(self.path, TypeAdapter(Fingerprint), REMEMBERED, is_set=True)

    def knows(self, model: ModelConfig, trainer: TrainerConfig) -> bool:
        """Return whether a layer of this shape, batch and precision was compiled here."""
        return _name(model, trainer) in self._names.read()

    def record(self, model: ModelConfig, trainer: TrainerConfig) -> None:
        """Remember a compiled layer; without it, a later run expects compiling to take longer."""
        self._names.record(_name(model, trainer))


def _name(model: ModelConfig, trainer: TrainerConfig) -> str:
    """Return a fingerprint of a layer and of how it is compiled, without depth and vocabulary."""
    layer = model.model_dump(exclude={"num_layers", "vocab_size", "tie_embeddings"})
    parts = [
        layer,
        trainer.micro_batch_size,
        trainer.dtype,
        trainer.attention,
        trainer.device,
        trainer.dropout,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
