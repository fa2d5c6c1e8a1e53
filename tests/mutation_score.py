"""What `make mutants` ends with: how many changes of each module the tests noticed; fails below 85
% in any of them.

Reads what mutmut wrote under mutants/. A change that made the tests hang was noticed, one without a
test was not.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mutmut.stats import status_by_exit_code

FOLDER = Path("mutants")
LEAST = 0.85
NOTICED = ("killed", "timeout", "segfault")
PENDING = ("not checked", "check was interrupted by user")


@dataclass(frozen=True)
class Score:
    """Of one module: each change by its name, with what became of it."""

    module: str
    outcomes: dict[str, str]

    @property
    def num_noticed(self) -> int:
        """How many changes failed a test."""
        return sum(outcome in NOTICED for outcome in self.outcomes.values())

    @property
    def num_pending(self) -> int:
        """How many were not tried yet."""
        return sum(outcome in PENDING for outcome in self.outcomes.values())

    @property
    def share(self) -> float:
        """The part that was noticed, of those that were tried; 1 where there were none."""
        tried = len(self.outcomes) - self.num_pending
        return self.num_noticed / tried if tried else 1.0


def read_scores(folder: Path = FOLDER) -> list[Score]:
    """Return the score of every module that mutmut changed."""
    scores = []
    for path in sorted(folder.rglob("*.py.meta")):
        codes = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
        outcomes = {name: status_by_exit_code[code] for name, code in codes.items()}
        if outcomes:
            scores.append(Score(path.relative_to(folder).with_suffix("").as_posix(), outcomes))
    return scores


def describe(scores: list[Score]) -> list[str]:
    """Return the changes that nobody noticed, a line each, and then a line a module and one for
    all.
    """
    lines = [
        f"{name}: {outcome}"
        for score in scores
        for name, outcome in score.outcomes.items()
        if outcome not in (*NOTICED, *PENDING)
    ]

    everything = Score(
        "all", {name: outcome for score in scores for name, outcome in score.outcomes.items()}
    )

    for score in (*scores, everything):
        counts = Counter(outcome for outcome in score.outcomes.values() if outcome != "killed")
        rest = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
        lines.append(
            f"{score.module:32} {score.num_noticed:4} of {len(score.outcomes):4} "
            f"{score.share:7.1%}  {rest}"
        )

    return lines


def main() -> int:
    """Print the scores; return 1 where a module is below LEAST or nothing was tried."""
    scores = read_scores()
    print("\n".join(describe(scores)))  # noqa: T201
    tried = [score for score in scores if score.num_pending < len(score.outcomes)]
    below = [score.module for score in tried if score.share < LEAST]
    if below or not tried:
        print(f"below {LEAST:.0%}: {', '.join(below) or 'nothing was tried'}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
