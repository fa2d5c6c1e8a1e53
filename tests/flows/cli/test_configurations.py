"""One message for each mistake, whichever door a configuration comes in by. Ten thousand stand in
tests/faults.
"""

from typing import Any

from hypothesis import HealthCheck, given, settings

from tests.faults.configurations import CONFIGURATIONS, DOORS, judge


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(overrides=CONFIGURATIONS)
def test_an_absurd_configuration_is_refused_in_one_line_by_the_same_words_at_every_door(
    overrides: dict[str, Any],
) -> None:
    said = {judge(lambda door=door: door(overrides)) for door in DOORS}
    assert len(said) == 1, said
    assert "\n" not in said.pop()
