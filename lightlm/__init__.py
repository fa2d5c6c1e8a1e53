"""LightLM: the best small language model that a given amount of wall-clock time allows.

From Python: `lightlm.plan("notes/", "30m")`, `lightlm.train("notes/", "30m")`,
`lightlm.load("notes").generate("The")` (docs/python.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightlm.api import Forecast as Forecast
    from lightlm.api import Model as Model
    from lightlm.api import Planned as Planned
    from lightlm.api import Text as Text
    from lightlm.api import Trained as Trained
    from lightlm.api import load as load
    from lightlm.api import plan as plan
    from lightlm.api import train as train

__version__ = "0.1.0"
__all__ = ["Forecast", "Model", "Planned", "Text", "Trained", "load", "plan", "train"]


def __getattr__(name: str) -> Any:
    """Return a name of lightlm.api, which is imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lightlm import api

    return getattr(api, name)
