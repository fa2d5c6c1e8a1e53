import httpx
import pytest

from lightlm.errors import TrainingError
from lightlm.runs.launch import Launch
from lightlm_flows.cli.launching import keep_result


def lose_prefect() -> None:
    raise httpx.ConnectError("All connection attempts failed")


def test_a_failed_flow_ends_with_its_own_reason_where_prefect_cannot_be_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    launch = Launch(failure=TrainingError("memory does not hold one sequence"))
    with pytest.raises(TrainingError, match="memory does not hold one sequence"):
        keep_result(lose_prefect, launch, lambda: None)
    assert "Prefect's API went down (ConnectError" in capsys.readouterr().err


def test_what_a_flow_reached_is_returned_where_prefect_cannot_be_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert keep_result(lose_prefect, Launch(), lambda: 7) == 7
    assert "the run is complete" in capsys.readouterr().err
