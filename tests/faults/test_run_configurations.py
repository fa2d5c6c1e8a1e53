"""Ten thousand absurd configurations: each is fine or refused in one line, by the same words at
every door.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.faults.configurations import CONFIGURATIONS, DOORS, judge
from tests.faults.conftest import SEED

COUNT = int(os.environ.get("FAULTS_CONFIGURATIONS", "10000"))


@pytest.mark.timeout(3600)
def test_absurd_configurations_are_refused_by_the_same_words_at_every_door(
    tell: Callable[[str], None],
) -> None:
    verdicts: dict[bool, int] = {True: 0, False: 0}

    @seed(SEED)
    @settings(
        max_examples=COUNT, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(overrides=CONFIGURATIONS)
    def check(overrides: dict[str, Any]) -> None:
        said = {judge(lambda door=door: door(overrides)) for door in DOORS}
        assert len(said) == 1, said
        (verdict,) = said
        assert "\n" not in verdict
        verdicts[verdict == "fine"] += 1

    check()
    counted = f"{sum(verdicts.values())} configurations at {len(DOORS)} doors"
    tell(f"{counted}: {verdicts[True]} fine, {verdicts[False]} refused")
