"""The fit of the loss law to our own runs and to published ones, with a text factor per source.

bits per byte = factor x (floor + A N^-a + B D^-b), N parameters that multiply a token, D bytes read.
The factor of our own texts is their measured difficulty; that of a published source is free, so
that a source tells the law about slopes and the floor, and nothing about its text.
"""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightlm.budget.scaling import difficulty_of

PUBLISHED = Path(__file__).resolve().parent / "published.jsonl"

Run = dict[str, Any]

SIZE_EXPONENTS = np.arange(0.10, 0.40, 0.02)
DATA_EXPONENTS = np.arange(0.12, 0.42, 0.02)
FLOORS = np.arange(0.40, 1.11, 0.10)
HORIZONS = (1.0, 1.5, 2.0, 3.0)
"""Grids of what is not solved for: exponents, floor in bits per byte, and the worth of repeats. No
run tells a lower floor from smaller exponents; 0.4 is below all published estimates for text.
"""

OUR_ERROR = 0.011
PUBLISHED_ERROR = 0.03
"""Relative errors that count alike: two seeds of ours differ by 0.3 %, recipes of others by more."""

BALANCE_ERROR = 0.2
"""Natural logarithm by which the slopes of size and data may differ at a published optimum."""

OUR_BALANCE = -0.40
OUR_BALANCE_ERROR = 0.15
"""The same at OUR_SIZE and OUR_BYTES, where the planner's choices were measured to be within 1.4 %
of the best (docs/results.md): the logarithm that the law of those measurements had there.
"""

OUR_SIZE = 1e6
OUR_BYTES = 1e7

OPTIMUM = "best of "
"""Beginning of the name of runs that are the minimum over sizes for their operations."""


@dataclass(frozen=True)
class Law:
    """The constants, and the factor of each published source."""

    floor: float
    size_scale: float
    size_exponent: float
    data_scale: float
    data_exponent: float
    repeats_worth: float
    factors: dict[str, float]

    def predict(self, size: float, data: float) -> float:
        """Return bits per byte of a text of factor 1; `data` counts repeats by their worth."""
        by_size = self.size_scale * size**-self.size_exponent
        return self.floor + by_size + self.data_scale * data**-self.data_exponent

    def balance(self, size: float, data: float) -> float:
        """Return the logarithm of the slope by size over that by data; 0 where C = 6 N D is spent
        best.
        """
        by_size = self.size_exponent * self.size_scale * size**-self.size_exponent
        by_data = self.data_exponent * self.data_scale * data**-self.data_exponent
        return math.log(by_size / by_data)

    def constants(self) -> dict[str, float]:
        """Return them as calibration.json names them, rounded."""
        return {
            "floor": round(float(self.floor), 4),
            "size_scale": round(self.size_scale, 4),
            "size_exponent": round(float(self.size_exponent), 3),
            "data_scale": round(self.data_scale, 4),
            "data_exponent": round(float(self.data_exponent), 3),
            "repeats_worth": self.repeats_worth,
        }


def read_published() -> list[Run]:
    """Return all published runs."""
    return [json.loads(line) for line in PUBLISHED.read_text(encoding="utf-8").splitlines()]


def count_bytes(run: Run) -> float:
    """Return the bytes that a published run read."""
    return run["tokens"] * run["bytes_per_token"]


def worth(seen: float, unique: float, horizon: float) -> float:
    """Return the fresh bytes that `seen` bytes are worth; as scaling.worth_of_repeats, with a
    horizon to try.
    """
    if seen <= unique:
        return seen
    return unique * (1 + horizon * (1 - math.exp(-(seen / unique - 1) / horizon)))


def fit_law(ours: list[Run], published: list[Run]) -> Law:
    """Return the law with the least weighted error over the grids."""
    size = np.array([float(run["matrix_parameters"]) for run in [*ours, *published]])
    bits = np.array(
        [run["bits_per_byte"] / find_difficulty(run) for run in ours]
        + [run["bits_per_byte"] for run in published]
    )
    sources = [""] * len(ours) + [run["source"] for run in published]
    tried: list[tuple[float, Law]] = []

    for horizon in HORIZONS:
        data = np.array(
            [worth(run["seen_bytes"], run["unique_bytes"], horizon) for run in ours]
            + [count_bytes(run) for run in published]
        )
        for a, b, floor in itertools.product(SIZE_EXPONENTS, DATA_EXPONENTS, FLOORS):
            law = solve(size**-a, data**-b, bits, sources, (a, b, floor, horizon))
            if law is not None:
                tried.append((weigh_errors(law, ours, published), law))

    return min(tried, key=lambda entry: entry[0])[1]


def solve(
    by_size: np.ndarray,
    by_data: np.ndarray,
    bits: np.ndarray,
    sources: list[str],
    fixed: tuple[float, float, float, float],
) -> Law | None:
    """Return the law with these exponents, floor and horizon; None if a scale is not positive.

    Scales and factors are solved for in turn, by least squares of the relative error.
    """
    a, b, floor, horizon = fixed
    names = sorted(set(sources) - {""})
    index = np.array([names.index(source) + 1 if source else 0 for source in sources])
    weight = np.where(index == 0, 1.0, OUR_ERROR / PUBLISHED_ERROR)
    factors = np.ones(len(names) + 1)
    scales = np.zeros(2)
    columns = np.stack([by_size, by_data], axis=1)

    for _ in range(60):
        plain = bits / factors[index]
        scaled = weight / plain
        gram = columns * scaled[:, None]
        scales = np.linalg.solve(gram.T @ gram, gram.T @ ((plain - floor) * scaled))
        if (scales <= 0).any():
            return None

        ratio = np.log(bits / (floor + columns @ scales))
        before = factors.copy()
        for number in range(1, len(names) + 1):
            factors[number] = math.exp(ratio[index == number].mean())
        if np.abs(factors - before).max() < 1e-5:
            break

    found = {name: float(factors[number + 1]) for number, name in enumerate(names)}
    return Law(floor, float(scales[0]), a, float(scales[1]), b, horizon, found)


def weigh_errors(law: Law, ours: list[Run], published: list[Run]) -> float:
    """Return the sum of squares of all errors, each over the size that counts as one."""
    own = rms([law.predict(*place(run, law)) * find_difficulty(run) for run in ours], ours)
    others = rms([law.factors[run["source"]] * law.predict(*place(run, law)) for run in published],
                 published)  # fmt: skip
    optima = [run for run in published if run["name"].startswith(OPTIMUM)]
    balances = [law.balance(*place(run, law)) for run in optima]
    balance = math.sqrt(sum(one**2 for one in balances) / max(1, len(balances)))
    inside = law.balance(OUR_SIZE, OUR_BYTES) - OUR_BALANCE
    return (
        (own / OUR_ERROR) ** 2
        + (others / PUBLISHED_ERROR) ** 2
        + (balance / BALANCE_ERROR) ** 2
        + (inside / OUR_BALANCE_ERROR) ** 2
    )


def place(run: Run, law: Law) -> tuple[float, float]:
    """Return the size of a run, and the fresh bytes that its text is worth."""
    if "seen_bytes" in run:
        data = worth(run["seen_bytes"], run["unique_bytes"], law.repeats_worth)
    else:
        data = count_bytes(run)
    return float(run["matrix_parameters"]), data


def find_difficulty(run: Run) -> float:
    """Return the difficulty of the text of one of our runs."""
    return difficulty_of(run["ngram_bits_per_byte"], run["sample_bytes"])


def rms(predicted: list[float], runs: list[Run]) -> float:
    """Return the root mean square of the relative errors."""
    errors = [one / run["bits_per_byte"] - 1 for one, run in zip(predicted, runs, strict=True)]
    return math.sqrt(sum(error**2 for error in errors) / max(1, len(errors)))
