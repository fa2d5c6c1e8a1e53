"""Commands to type next: this command as it was started, and this model by its name."""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from lightlm.child_process import python_command


def name_command() -> str:
    """Return how this command is started from here: `lightlm` if the PATH has it, else its path, or
    python -m.
    """
    by_python = python_command("lightlm_flows.cli")
    own = Path(by_python[0]).with_name("lightlm.exe" if os.name == "nt" else "lightlm")
    if not own.exists():
        return shlex.join(by_python)
    found = shutil.which("lightlm")
    if found is not None and Path(found).samefile(own):
        return "lightlm"
    folder = Path.cwd()
    return shlex.quote(str(own.relative_to(folder) if own.is_relative_to(folder) else own))


def list_next_commands(name: str, version: str, aliases: Sequence[str]) -> tuple[str, ...]:
    """Return what a person does next with a version of a model; one that is not registered yet is
    sent first.
    """
    command = name_command()
    if not version:
        return (f"{command} sync",)
    which = f"--name {name}" if "champion" in aliases else f"--model models:/{name}/{version}"
    return (f'{command} generate "The" {which}', f"{command} models --name {name}", f"{command} ui")
