"""Documents of too few words for runs of words: copies of each other if all their words
are equal.
"""

import numpy as np

MOST_SHORT_TEXTS = 3_000_000
"""Documents of a split that are remembered, at 16 bytes of memory each."""


class ShortTexts:
    """The short documents of a split by a hash of their words. `wholes` tells which whole document
    each is of.
    """

    def __init__(self, wholes: np.ndarray | None) -> None:
        self._wholes = wholes
        self._numbers: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        self._size = 0
        self._index: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, numbers: np.ndarray, keys: np.ndarray) -> None:
        """Remember documents, in order."""
        if self._size < MOST_SHORT_TEXTS:
            self._numbers.append(numbers)
            self._keys.append(keys)
            self._size += len(numbers)

    def mark_copies(self, is_out: np.ndarray) -> None:
        """Mark in `is_out` each document with the words of an earlier one, unless both are of one
        whole document.
        """
        if not self._size:
            return

        numbers = np.concatenate(self._numbers)
        keys = np.concatenate(self._keys)
        stays = ~is_out[numbers]
        numbers = numbers[stays]
        keys = keys[stays]
        found, first, places = np.unique(keys, return_index=True, return_inverse=True)
        self._index = found, numbers[first]
        earlier = numbers[first][places]
        is_copy = earlier != numbers
        if self._wholes is not None:
            is_copy &= self._wholes[earlier] != self._wholes[numbers]

        is_out[numbers[is_copy]] = True

    def mark_leaks(
        self, numbers: np.ndarray, keys: np.ndarray, wholes: np.ndarray | None, is_out: np.ndarray
    ) -> None:
        """Mark another split's documents that have the words of one of these.

        `mark_copies` comes before.
        """
        if self._index is None or not len(self._index[0]):
            return
        known, owners = self._index
        places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        is_leak = known[places] == keys
        if self._wholes is not None and wholes is not None:
            is_leak &= self._wholes[owners[places]] != wholes[numbers]
        is_out[numbers[is_leak]] = True
