"""How LightLM starts Python: no process of ours imports a file of the folder that a person stands in.

`python -m` puts the current folder first on the search path, so that a `queue.py` or `numpy.py` next to the text, in
an unpacked data set for example, would run in place of the library's. `-P` leaves the folder out.
"""

import sys
from collections.abc import Mapping
from types import MappingProxyType

SAFE_PATH: Mapping[str, str] = MappingProxyType({"PYTHONSAFEPATH": "1"})
"""The same for what a child starts in turn: MLflow's web server, Prefect's flow runs, the compiler's processes."""


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a Python like this one, the current folder not on its search path."""
    return [sys.executable, "-P", "-m", module, *arguments]
