"""A JSON object from a file or from another process, whose values no one has checked yet."""

from typing import Any

JsonObject = dict[str, Any]
"""Used where such an object is read or written; past that border its values have a class."""
