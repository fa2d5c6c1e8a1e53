"""Curves in characters: reached against predicted scores over the budget.

Braille patterns give each character two by four dots; where the terminal cannot show them, a
character is one mark. The predicted curve is dotted and dim, so the two differ without color, too.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from rich.text import Text

ROWS = 6
"""Fewest rows of characters; with the rest of the panel they leave a quarter of 24 lines free."""

MOST_ROWS = 20
"""More rows show no more of a curve."""

OTHER_LINES = 18
"""Lines of the terminal that a curve of `choose_rows` leaves to the panel and the log above it."""

AXIS_COLUMNS = 6

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character by row and column. Source: The Unicode Standard, block U+2800."""

EVERY = 4
"""Columns of dots from one dot of the predicted curve to the next."""

LEAST_SPAN = 0.2
"""Bits per byte from the lower edge to the upper one."""

Points = Sequence[tuple[float, float]]
"""Fraction of the budget and bits per byte."""


def choose_rows(height: int) -> int:
    """Return the rows of the curve in a terminal of `height` lines."""
    return min(MOST_ROWS, max(ROWS, height - OTHER_LINES))


def render_curves(
    reached: Points,
    held_out: Points,
    predict: Callable[[float], float] | None,
    width: int,
    rows: int = ROWS,
    *,
    is_unicode: bool,
) -> list[Text]:
    """Return `rows` lines with an axis in bits per byte, and one with the share of the training
    time where there is room for more than ROWS; none before there is something to draw.

    `reached` is a line of dots, `held_out` are marks, `predict` gives the predicted value at a
    fraction of the training time.
    """
    columns = width - AXIS_COLUMNS - 2
    if columns < 10 or not (reached or held_out):
        return []

    across, down = (2, 4) if is_unicode else (1, 1)
    predicted = [] if predict is None else [(i / 40, predict(i / 40)) for i in range(2, 41)]
    low, high = find_range([*reached, *held_out], predicted)
    canvas = Canvas(columns, across, down)

    def row_of(value: float) -> int:
        share = (high - min(max(value, low), high)) / (high - low)
        return min(rows * down - 1, int(share * rows * down))

    if predict is not None:
        for x in range(0, columns * across, EVERY if is_unicode else 2):
            canvas.dot(x, row_of(predict(max(0.02, x / (columns * across)))), "predicted")

    for x, value in interpolate(reached, columns * across):
        canvas.dot(x, row_of(value), "reached")
    for progress, value in held_out:
        canvas.mark(min(columns - 1, int(progress * columns)), row_of(value) // down)
    lines = []

    for row in range(rows):
        label = {0: f"{high:.2f}", rows - 1: f"{low:.2f}"}.get(row, "")
        line = Text(f"{label:>{AXIS_COLUMNS - 1}} ", "dim", no_wrap=True)
        line.append("│" if is_unicode else "|", "dim")
        line.append_text(canvas.line(row, is_unicode=is_unicode))
        lines.append(line)

    return [*lines, render_time_axis(columns)] if rows > ROWS else lines


def render_time_axis(columns: int) -> Text:
    """Return the line below a curve of so many characters: shares of the training time."""
    middle = f"{'50%':^{max(0, columns - 6)}}" if columns >= 24 else " " * (columns - 6)
    return Text(f"{'':{AXIS_COLUMNS}} 0%{middle}100%", "dim", no_wrap=True)


def find_range(points: Points, predicted: Points) -> tuple[float, float]:
    """Return the lower and the upper edge: the start, which is far above all else, is cut."""
    values = sorted(value for _, value in points)
    low = min(values[0], *(value for _, value in predicted)) if predicted else values[0]
    # The first losses are those of a model that knows nothing; they would press all else into one
    # line.
    late = [value for progress, value in points if progress >= 0.02] or values
    high = max(late)
    if high - low < LEAST_SPAN:
        high = low + LEAST_SPAN
    return low - 0.03 * (high - low), high


def interpolate(points: Points, columns: int) -> list[tuple[int, float]]:
    """Return a value for each column between the first and the last point, by straight lines."""
    if not points:
        return []
    known = {min(columns - 1, int(progress * columns)): value for progress, value in points}
    places = sorted(known)
    drawn = [(places[0], known[places[0]])]
    for left, right in pairwise(places):
        for x in range(left + 1, right + 1):
            share = (x - left) / (right - left)
            drawn.append((x, known[left] + share * (known[right] - known[left])))
    return drawn


class Canvas:
    """Dots in characters. A character is drawn in the style of the best thing in it."""

    def __init__(self, columns: int, across: int, down: int) -> None:
        self.columns = columns
        self.across = across
        self.down = down
        self._bits: dict[tuple[int, int], int] = {}
        self._kinds: dict[tuple[int, int], str] = {}

    def dot(self, x: int, y: int, kind: str) -> None:
        """Set a dot of the "reached" or the "predicted" curve."""
        cell = (y // self.down, x // self.across)
        self._bits[cell] = self._bits.get(cell, 0) | DOTS[y % self.down][x % self.across]
        if self._kinds.get(cell) != "reached":
            self._kinds[cell] = kind

    def mark(self, column: int, row: int) -> None:
        """Set the mark of a held-out score."""
        self._kinds[(row, column)] = "held out"

    def line(self, row: int, *, is_unicode: bool) -> Text:
        """Return a row of characters."""
        line = Text()
        for column in range(self.columns):
            kind = self._kinds.get((row, column))
            if kind is None:
                line.append(" ")
            elif kind == "held out":
                line.append("●" if is_unicode else "o", "bold green")
            else:
                plain = "*" if kind == "reached" else "."
                sign = chr(0x2800 + self._bits[row, column]) if is_unicode else plain
                line.append(sign, "cyan" if kind == "reached" else "dim")

        return line
