"""How LightLM starts Python: no process of ours imports a file of the folder that a person stands
in.

`python -m` puts the current folder first on the search path, so that a `queue.py` or `numpy.py`
next to the text, in an unpacked data set for example, would run in place of the library's. `-P`
leaves the folder out.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

SAFE_PATH: Mapping[str, str] = MappingProxyType({"PYTHONSAFEPATH": "1"})
"""The same for what a child starts in turn: MLflow's web server, Prefect's flow runs, the
compiler's processes.
"""


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a Python like this one, the current folder not on
    its search path.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


class _Nothing:
    """What is found in a folder that is not looked into."""

    @staticmethod
    def find_spec(name: str, target: object = None) -> None:
        """Find nothing."""


def refuse_relative_folders() -> None:
    """Import nothing from now on from a folder that the search path gives relative to the current
    one.

    For the processes that update a database: alembic puts "." first on the path, as the settings of
    MLflow's users and of Prefect ask for, and what is imported later would come from there.
    """
    sys.path_hooks.insert(0, _find_nothing)
    sys.path_importer_cache.pop(".", None)


def _find_nothing(folder: str) -> type[_Nothing]:
    if Path(folder).is_absolute():
        raise ImportError(f"{folder} is for the next finder")
    return _Nothing
