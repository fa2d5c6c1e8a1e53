"""Tests of the cache of blocks: what is used stays, what is oldest goes."""

import hashlib
import os
from pathlib import Path

import pytest

from lightlm.errors import CorruptError
from lightlm.store.blocks import BlockCache


def name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refuse() -> bytes:
    raise AssertionError("asked for again")


def test_the_block_that_was_used_longest_ago_goes(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache", 250)
    contents = [bytes([index]) * 100 for index in range(3)]
    for age, content in enumerate(contents[:2]):
        cache.read(name(content), lambda content=content: content)
        os.utime(tmp_path / "cache" / name(content), (age, age))
    assert bytes(cache.read(name(contents[0]), refuse)) == contents[0]
    cache.read(name(contents[2]), lambda: contents[2])
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {
        name(contents[0]),
        name(contents[2]),
    }


def test_another_content_is_not_kept(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache", 250)
    with pytest.raises(CorruptError, match="SHA-256"):
        cache.read(name(b"wanted"), lambda: b"got")
    assert not list((tmp_path / "cache").iterdir())
