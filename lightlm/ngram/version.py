"""The count tables of a model's folder: opened after its digests were checked, or missing."""

from pathlib import Path

from lightlm.errors import ModelVersionError
from lightlm.ngram.mixture import Mixture, open_mixture


def load_mixture(folder: Path) -> Mixture | None:
    """Return the mixture in a model's folder; None where the version is a network alone.

    Raises:
        ModelVersionError: its tables cannot be read.
    """
    try:
        return open_mixture(folder)
    except ValueError as error:
        raise ModelVersionError(str(error)) from None
