"""JSON values one after another out of a file of any length: an array's elements, an object's
members, a sequence.
"""

import json
import re
from collections.abc import Iterator

from lightlm.data.characters.file_checks import LONGEST_ROW_BYTES, format_long
from lightlm.errors import DatasetError

FIRST_CHARACTERS = 1 << 16
"""Characters that are decoded at first; a value that goes on gets twice as many each time."""

NEAR_END = 64
"""Distance from the end within which an error may only mean that the value goes on."""

SPACE = re.compile(r"[ \t\r\n\ufeff]*")


class TornEnd(Exception):
    """The input ends inside of a value."""


class BrokenValue(Exception):
    """What stands there is no JSON; says why and in which line."""


class JsonStream:
    """A place in a JSON text that is read on in parts; memory holds one value and a part.

    `num_read` is how many characters were read so far.
    """

    def __init__(self, parts: Iterator[str], name: str) -> None:
        self._parts = parts
        self._name = name
        self._buffer = ""
        self._position = 0
        self._line = 1
        self._is_ended = False
        self.num_read = 0
        # strict=False: line ends and tabs inside of strings do no harm.
        self._decoder = json.JSONDecoder(strict=False)

    @property
    def line(self) -> int:
        """Return the number of the line that is read."""
        return self._line + self._buffer.count("\n", 0, self._position)

    def peek(self) -> str:
        """Return the next character that is no blank, "" at the end."""
        while True:
            match = SPACE.match(self._buffer, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._fill(FIRST_CHARACTERS):
                return ""

    def take(self, wanted: str) -> str:
        """Return the next character, one of `wanted`, and go on behind it.

        Raises:
            TornEnd: the input ends there.
            BrokenValue: another character stands there.
        """
        found = self.peek()
        if not found:
            raise TornEnd
        if found not in wanted:
            raise BrokenValue(f"line {self.line}: wanted one of {' '.join(wanted)}, got {found!r}")
        self._position += 1
        return found

    def decode(self) -> object:
        """Return the value that begins at the next character.

        Raises:
            TornEnd: the input ends inside of it.
            BrokenValue: it is no JSON, or nested too deeply.
            DatasetError: it is longer than a row may be.
        """
        if not self.peek():
            raise TornEnd

        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                goes_on = (
                    error.msg.startswith("Unterminated string")
                    or error.pos > len(self._buffer) - NEAR_END
                )
                if goes_on and self._fill(
                    max(FIRST_CHARACTERS, 2 * (len(self._buffer) - self._position))
                ):
                    continue
                if goes_on:
                    raise TornEnd from None
                raise BrokenValue(f"line {self.line}: {error.msg}") from None
            except RecursionError:
                raise BrokenValue(f"line {self.line}: nested too deeply") from None
            except ValueError as error:
                raise BrokenValue(f"line {self.line}: {str(error).partition(';')[0]}") from None
            # A number at the end of what was read may go on.
            if (
                end == len(self._buffer)
                and not isinstance(value, str | list | dict)
                and self._fill(FIRST_CHARACTERS)
            ):
                continue
            self._position = end
            return value

    def elements(self) -> Iterator[object]:
        """Yield the elements of the array that begins at the next character."""
        self.take("[")
        if self.peek() == "]":
            self._position += 1
            return
        while True:
            yield self.decode()
            if self.take(",]") == "]":
                return

    def members(self) -> Iterator[str]:
        """Yield the keys of the object that begins there; whoever iterates reads each value before
        the next key.
        """
        self.take("{")
        if self.peek() == "}":
            self._position += 1
            return

        while True:
            if self.peek() not in ('"', ""):
                raise BrokenValue(f"line {self.line}: wanted a key in double quotes")
            key = self.decode()
            self.take(":")
            yield str(key)
            if self.take(",}") == "}":
                return

    def _fill(self, wanted: int) -> bool:
        """Read on; return whether there was more."""
        if self._is_ended:
            return False

        held = len(self._buffer) - self._position
        if held > LONGEST_ROW_BYTES:
            raise DatasetError(f"{self._name} line {self.line} has a value of {format_long(held)}")

        parts = []
        length = 0
        for part in self._parts:
            parts.append(part)
            length += len(part)
            if length >= wanted:
                break
        else:
            self._is_ended = True

        self.num_read += length
        self._line = self.line
        self._buffer = "".join((self._buffer[self._position :], *parts))
        self._position = 0

        return length > 0
