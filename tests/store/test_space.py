"""Tests of the room on the disk: asked for before a stage writes, refused with both figures and
what to do.
"""

from pathlib import Path

import pytest

from lightlm.errors import StoreError
from lightlm.store.space import KEPT_FREE_BYTES, check_space


def test_what_fits_is_not_refused(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "yet", 1000, "a stage")


def test_what_does_not_fit_is_refused_with_both_figures_and_what_to_do(tmp_path: Path) -> None:
    wanted = 10**18
    with pytest.raises(StoreError) as caught:
        check_space(tmp_path, wanted, "training")
    said = str(caught.value)
    assert said.startswith("training will take about 1,000,000,000,000 MB under ")
    for words in ("MB are free", "lightlm store prune", "another LIGHTLM_HOME", str(tmp_path)):
        assert words in said


def test_the_last_bytes_are_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    free = shutil.disk_usage(tmp_path)._replace(free=KEPT_FREE_BYTES + 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    check_space(tmp_path, 100, "a stage")
    with pytest.raises(StoreError):
        check_space(tmp_path, 101, "a stage")


def test_the_refusal_says_how_much_is_wanted_kept_and_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    free = shutil.disk_usage(tmp_path)._replace(free=5_000_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(StoreError) as caught:
        check_space(tmp_path, 7_000_000_000_000, "training")
    assert str(caught.value) == (
        f"training will take about 7,000,000 MB under {tmp_path} and 67 MB stay free, but only "
        "5,000,000 MB are free; "
        "free some space (`lightlm store` lists what is there, `lightlm store prune` drops what "
        "can be made again), or "
        "give another LIGHTLM_HOME"
    )
