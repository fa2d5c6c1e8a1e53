"""LightLM: the best small language model that a given amount of wall-clock time allows.

From Python: `lightlm.load("notes").generate("The")`, `lightlm.train("notes/", "30m")`
(docs/python.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightlm.api import Model as Model
    from lightlm.api import Trained as Trained
    from lightlm.api import load as load
    from lightlm.api import train as train

__version__ = "0.1.0"
__all__ = ["Model", "Trained", "load", "train"]


def __getattr__(name: str) -> Any:
    """Return a name of lightlm.api, which is imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lightlm import api

    return getattr(api, name)
