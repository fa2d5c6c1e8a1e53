"""Machines that one does not have: params/machines/*.yaml as the figures that a plan is made of.

Their rates are published ones or assumptions, as each file says, with a doubt that widens every
prediction.
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from lightlm.budget.probe import MachineRate, Probe, TimedShape
from lightlm.budget.shapes import dense_shape, depths_for
from lightlm.errors import ParameterError
from lightlm.model.accounting import flops_per_token
from lightlm.params import PARAMS_FOLDER, describe_validation
from lightlm.safe_yaml import read_yaml

MACHINES_FOLDER = PARAMS_FOLDER / "machines"

FORWARD_SPEED = 2.5
"""Factor on the speed of training that scoring has, without a backward pass; assumption."""

TIMED_VOCABULARY = 16_384
TIMED_CONTEXT = 1024
TIMED_BATCH = 65_536
"""Shape and batch that stand for all of a machine's rates; only their operations matter."""

Positive = Annotated[float, Field(gt=0)]


class Machine(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A machine by its published figures: rates in TFLOP/s, memory in GB, links in GB/s."""

    title: str
    device: Literal["cpu", "cuda", "mps"]
    num_devices: Annotated[int, Field(ge=1)]
    num_cores: Annotated[int, Field(ge=1)]
    memory_gb: Positive
    bandwidth_gb_per_second: Positive
    link_gb_per_second: Positive | None = None
    compute_capability: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"]
    matrix_tflops: Positive
    trained_tflops: Annotated[dict[int, Positive], Field(min_length=2)]
    doubt: Annotated[float, Field(gt=0, lt=1)]
    sources: Annotated[list[str], Field(min_length=1)]

    def to_probe(self) -> Probe:
        """Return the figures for a plan.

        GPUs are expected to train compiled, which their rates include.
        """
        is_compiled = self.device != "cpu"
        shapes = [
            self._time(width, rate, is_compiled=compiled)
            for width, rate in sorted(self.trained_tflops.items())
            for compiled in ((False, True) if is_compiled else (False,))
        ]
        machine = MachineRate(
            device=self.device,
            dtype=self.dtype,
            num_threads=self.num_cores,
            num_devices=self.num_devices,
            flops_per_second=1e12 * self.matrix_tflops,
            memory_bytes=int(1e9 * self.memory_gb),
            link_bytes_per_second=self.link_gb_per_second and 1e9 * self.link_gb_per_second,
        )
        return Probe(machine=machine, shapes=tuple(shapes), assumes_compiled=is_compiled)

    def _time(self, width: int, tflops: float, *, is_compiled: bool) -> TimedShape:
        layers = depths_for(width)[0]
        model = dense_shape(TIMED_VOCABULARY, layers, width, TIMED_CONTEXT)
        tokens_per_second = 1e12 * tflops / flops_per_token(model)
        seconds = TIMED_BATCH / tokens_per_second
        return TimedShape(
            model=model,
            batch_tokens=TIMED_BATCH,
            is_compiled=is_compiled,
            first_seconds=seconds,
            step_seconds=seconds,
            slow_step_seconds=seconds,
            tokens_per_second=tokens_per_second,
            score_tokens_per_second=FORWARD_SPEED * tokens_per_second,
            memory_bytes=0,
            is_extrapolated=True,
        )


def list_machines() -> list[str]:
    """Return the names of all machines, in alphabetical order."""
    return sorted(path.stem for path in MACHINES_FOLDER.glob("*.yaml"))


def load_machine(name: str) -> Machine:
    """Return a machine by its name, or from a YAML file of one's own.

    Raises:
        ParameterError: no such machine, or the file does not describe one.
    """
    is_file = name.endswith((".yaml", ".yml"))
    path = Path(name).expanduser() if is_file else MACHINES_FOLDER / f"{name}.yaml"
    if not is_file and name not in list_machines():
        raise ParameterError(
            f"no machine is called {name}; give one of {', '.join(list_machines())}, or the path "
            "of a YAML file with the same keys as params/machines/h100.yaml"
        )

    try:
        return Machine.model_validate(read_yaml(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ParameterError(f"cannot read the machine {path}: {error}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(f"{path} is no YAML: {error}") from None
    except ValidationError as error:
        raise ParameterError(f"{path}: {describe_validation(error)}") from None
