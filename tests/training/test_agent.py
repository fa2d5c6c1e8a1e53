"""Tests of the agent's address; what it does with ranks is test_distributed's."""

import stat
from pathlib import Path

import psutil
import pytest

from lightlm.errors import ParameterError
from lightlm.training.agent import ADDRESS, find_address, open_meeting, run_agent


def test_several_nodes_want_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    with pytest.raises(ParameterError, match=f"num_nodes is 2; set {ADDRESS}=HOST:PORT"):
        find_address(2)
    monkeypatch.setenv(ADDRESS, "10.0.0.1:29500")
    assert find_address(2) == ("10.0.0.1", 29500)


def test_an_address_of_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, "192.0.2.1:29500")
    with pytest.raises(
        ParameterError, match=r"192\.0\.2\.1:29500 .* give an address of this machine"
    ):
        run_agent(2, 1)


def test_one_node_meets_in_a_file_of_its_owner_and_at_no_port() -> None:
    with open_meeting(1) as (_, store):
        store.set("key", "value")
        file = Path(store.path)  # pyright: ignore[reportAttributeAccessIssue]
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert store.get("key") == b"value"
        listening = psutil.Process().net_connections("tcp")
        assert [one for one in listening if one.status == psutil.CONN_LISTEN] == []
    assert not file.parent.exists()
