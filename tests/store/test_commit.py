"""Tests of durable commits: complete or absent, verified before use, whatever kills the writer."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lightlm.errors import CorruptError, StoreError
from lightlm.store import disk
from lightlm.store.commit import (
    MANIFEST,
    commit_folder,
    find_commit,
    open_commit,
    publish_file,
    remove_folder,
    write_file,
)

KILLS = 25


def write_two(folder: Path) -> Mapping[str, Any]:
    (folder / "a.bin").write_bytes(b"alpha" * 1000)
    (folder / "inner").mkdir()
    (folder / "inner" / "b.txt").write_text("beta")
    return {"answer": 42}


def test_a_commit_gives_back_its_meta_and_files(tmp_path: Path) -> None:
    made = commit_folder(tmp_path / "one", "sample", write_two)
    found = open_commit(tmp_path / "one", "sample")
    assert found == made
    assert found.meta == {"answer": 42}
    assert (found.folder / "inner" / "b.txt").read_text() == "beta"


def test_the_first_of_two_commits_under_one_name_stays(tmp_path: Path) -> None:
    first = commit_folder(tmp_path / "one", "sample", write_two)

    def write_other(folder: Path) -> Mapping[str, Any]:
        (folder / "c").write_text("other")
        return {}

    assert commit_folder(tmp_path / "one", "sample", write_other) == first


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> Mapping[str, Any]:
        (folder / "half").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        commit_folder(tmp_path / "one", "sample", fail)
    assert list(tmp_path.glob("*one*")) == []
    assert list(tmp_path.glob(".tmp-*")) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_changed_byte_is_refused_before_anybody_parses_it(tmp_path: Path, seed: int) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    draw = random.Random(seed)
    path = draw.choice([folder / "a.bin", folder / "inner" / "b.txt"])
    content = bytearray(path.read_bytes())
    position = draw.randrange(len(content))
    content[position] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptError, match=r"SHA-256 .* its manifest says"):
        open_commit(folder, "sample")


def test_a_shortened_a_longer_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for index, damage in enumerate(
        (lambda p: p.write_bytes(b"x"), lambda p: p.write_bytes(b"x" * 9999), Path.unlink)
    ):
        folder = commit_folder(tmp_path / str(index), "sample", write_two).folder
        damage(folder / "a.bin")
        with pytest.raises(CorruptError, match=r"a\.bin"):
            open_commit(folder, "sample")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": 1}', b"\xff\xfe", b'{"files": 3, "meta": 1}']
)
def test_a_broken_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(StoreError):
        open_commit(folder, "sample")


def forge(folder: Path, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> None:
    """Change the manifest as somebody would who knows how it is sealed."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    if seal:
        said = {name: value for name, value in manifest.items() if name != "sha256"}
        manifest["sha256"] = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "inner/../../outside", "a\0b"])
def test_a_manifest_that_names_a_file_outside_is_refused(tmp_path: Path, name: str) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    (tmp_path / "outside").write_text("x")
    forge(
        folder, lambda manifest: manifest["files"].update({name: {"bytes": 1, "sha256": "0" * 64}})
    )
    with pytest.raises(CorruptError, match="outside its folder"):
        open_commit(folder, "sample")
    with pytest.raises(CorruptError, match="outside its folder"):
        open_commit(folder, "sample", verify=False)


@pytest.mark.parametrize("target", ["inner/b.txt", "/etc/passwd", "../outside"])
def test_a_file_that_became_a_link_is_refused(tmp_path: Path, target: str) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    (tmp_path / "outside").write_bytes((folder / "a.bin").read_bytes())
    (folder / "a.bin").unlink()
    (folder / "a.bin").symlink_to(target)
    with pytest.raises(CorruptError):
        open_commit(folder, "sample")


@pytest.mark.parametrize("key", ["kind", "meta", "files", "sha256"])
def test_a_manifest_that_says_something_else_is_refused(tmp_path: Path, key: str) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    other: dict[str, Any] = {
        "kind": "other",
        "meta": {"answer": 43},
        "files": {},
        "sha256": "0" * 64,
    }
    forge(folder, lambda manifest: manifest.update({key: other[key]}), seal=False)
    with pytest.raises(CorruptError, match=r"SHA-256 .* it says"):
        open_commit(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("kind", 3), ("meta", []), ("files", []), ("files", {"a.bin": 1}), ("files", {"a.bin": {}})],
)
def test_a_manifest_of_other_types_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    forge(folder, lambda manifest: manifest.update({key: value}))
    with pytest.raises(CorruptError, match=r"other types|does not say"):
        open_commit(folder)


def test_a_file_that_the_manifest_does_not_name_is_refused_and_a_hidden_one_is_not(
    tmp_path: Path,
) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    (folder / ".DS_Store").write_text("left by a file manager")
    open_commit(folder, "sample")
    (folder / "inner" / "adapter_config.json").write_text("{}")
    with pytest.raises(CorruptError, match=r"adapter_config\.json is not in its manifest"):
        open_commit(folder, "sample")


def test_a_manifest_with_the_same_content_in_other_bytes_is_refused(tmp_path: Path) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b"\n")
    with pytest.raises(CorruptError, match="not as it was written"):
        open_commit(folder)


def test_a_writer_that_leaves_a_link_is_refused(tmp_path: Path) -> None:
    def write_link(folder: Path) -> Mapping[str, Any]:
        (folder / "a").symlink_to("/etc/passwd")
        return {}

    with pytest.raises(StoreError, match="symbolic link"):
        commit_folder(tmp_path / "one", "sample", write_link)
    assert list(tmp_path.glob("*one*")) == []


def test_a_folder_in_place_of_a_file_is_damage(tmp_path: Path) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    (folder / "a.bin").unlink()
    (folder / "a.bin").mkdir()
    with pytest.raises(CorruptError, match="is no file"):
        open_commit(folder, "sample")


def test_a_manifest_that_cannot_be_used_is_told_with_the_folder_to_remove(tmp_path: Path) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    path = folder / MANIFEST
    remedy = f"remove {folder} and run the same command again, which makes it anew"
    sound = path.read_bytes()

    def refused() -> str:
        with pytest.raises(StoreError) as caught:
            open_commit(folder)
        return str(caught.value)

    path.write_bytes(b"{")
    assert refused().startswith(f"{path} is no manifest (")
    assert refused().endswith(f"); {remedy}")
    path.write_bytes(sound + b" ")
    assert refused() == f"{path} is not as it was written; {remedy}"
    wanted = json.loads(sound)["sha256"]
    path.write_bytes(sound.replace(b'"answer": 42', b'"answer": 43'))
    told, rest = refused().split(" has SHA-256 ")
    assert (told, rest[16:]) == (str(path), f"..., it says {wanted[:16]}...; {remedy}")
    path.unlink()
    assert refused() == f"{path} is missing; {remedy}"
    remove_folder(folder)
    assert refused() == f"there is no {folder}"


def test_what_is_lost_or_broken_is_told_with_the_folder_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    remedy = f"remove {folder} and run the same command again, which makes it anew"
    (folder / "a.bin").unlink()
    with pytest.raises(CorruptError) as caught:
        open_commit(folder)
    assert str(caught.value) == f"{folder / 'a.bin'} is missing; {remedy}"
    (folder / "a.bin").mkdir()
    with pytest.raises(CorruptError) as caught:
        open_commit(folder)

    assert str(caught.value) == f"{folder / 'a.bin'} is no file; {remedy}"

    def refuse(path: Path) -> bool:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(CorruptError) as caught:
        find_commit(folder, "sample")
    assert str(caught.value) == f"{folder} cannot be read any more (broken); {remedy}"


def test_a_folder_that_cannot_be_read_at_present_is_not_called_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder

    def refuse(path: Path) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("lightlm.store.commit.hash_file", refuse)
    with pytest.raises(StoreError, match="too many open files") as caught:
        open_commit(folder, "sample")
    assert not isinstance(caught.value, CorruptError)


def test_another_kind_and_another_schema_are_refused(tmp_path: Path) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    with pytest.raises(StoreError, match="holds a sample, wanted a model"):
        open_commit(folder, "model")
    forge(folder, lambda manifest: manifest.update(schema=99))
    with pytest.raises(StoreError, match="schema 99"):
        open_commit(folder, "sample")
    forge(folder, lambda manifest: (manifest.update(schema=1), manifest.pop("sha256")), seal=False)
    with pytest.raises(StoreError, match="another version of LightLM"):
        open_commit(folder, "sample")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", range(1, 8))
def test_a_disk_that_refuses_any_sync_leaves_no_commit_and_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: int
) -> None:
    real = os.fsync
    calls = 0

    def refuse(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(code, os.strerror(code))
        real(handle)

    monkeypatch.setattr(disk.os, "fsync", refuse)
    with pytest.raises(StoreError) as caught:
        commit_folder(tmp_path / "one", "sample", write_two)
    assert str(tmp_path / "one") in str(caught.value)
    assert not (tmp_path / "one").exists()
    assert list(tmp_path.glob(".tmp-*")) == []


def test_a_full_disk_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(disk.os, "fsync", refuse)
    with pytest.raises(StoreError, match=r"the disk is full: .* free some space"):
        write_file(tmp_path / "file", b"content")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"old")
    write_file(tmp_path / "file", b"new and longer")
    assert (tmp_path / "file").read_bytes() == b"new and longer"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_a_published_file_has_its_name_and_was_synced_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    synced = []

    def watch(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, (tmp_path / "scratch").exists()))
        real(handle)

    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "scratch").write_bytes(b"new")
    inode = (tmp_path / "scratch").stat().st_ino
    monkeypatch.setattr(disk.os, "fsync", watch)
    publish_file(tmp_path / "scratch", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert synced == [(inode, True), (tmp_path.stat().st_ino, False)], (
        "its bytes, and then its name"
    )


def test_a_file_that_cannot_be_published_or_adopted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    (tmp_path / "scratch").write_bytes(b"new")

    def refuse(handle: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(disk.os, "fsync", refuse)
    with pytest.raises(StoreError, match=rf"^{tmp_path / 'file'} could not be written \(broken\)"):
        publish_file(tmp_path / "scratch", tmp_path / "file")
    with pytest.raises(StoreError, match=rf"^{folder} could not be written \(broken\)"):
        commit_folder(folder, "sample", write_two)


def test_a_removed_folder_is_gone_and_removing_it_again_is_nothing(tmp_path: Path) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    remove_folder(folder)
    remove_folder(folder)
    assert list(tmp_path.glob("*one*")) == []
    assert list(tmp_path.glob(".trash-*")) == []


COMMIT_FOR_EVER = """
import sys
from pathlib import Path
from lightlm.store.commit import commit_folder
parent = Path(sys.argv[1])
def write(folder):
    for index in range(5):
        (folder / f"{index}.bin").write_bytes(bytes([index]) * 200_000)
    return {}
number = int(sys.argv[2])
while True:
    commit_folder(parent / f"c-{number}", "sample", write)
    print(number, flush=True)
    number += 1
"""


def test_a_kill_at_any_moment_leaves_whole_commits_only(tmp_path: Path) -> None:
    tmp_path = tmp_path / "commits"
    draw = random.Random(7)
    started = 0

    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMIT_FOR_EVER, str(tmp_path), str(started)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        said = [process.stdout.readline()]
        time.sleep(draw.uniform(0.0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.read().splitlines()
        process.wait()
        reported = [int(line) for line in said if line.strip()]
        for number in reported:
            open_commit(tmp_path / f"c-{number}", "sample")
        for folder in tmp_path.glob("c-*"):
            open_commit(folder, "sample")
        started = max(int(folder.name[2:]) for folder in tmp_path.glob("c-*")) + 1
        for folder in tmp_path.glob("c-*"):
            remove_folder(folder)

    commit_folder(tmp_path / "last", "sample", write_two)
    assert [path.name for path in tmp_path.iterdir()] == ["last"], "what dead writers left is swept"


def test_a_commit_of_another_kind_is_neither_found_nor_adopted(tmp_path: Path) -> None:
    commit_folder(tmp_path / "one", "sample", write_two)
    with pytest.raises(StoreError, match="holds a sample, wanted a model"):
        find_commit(tmp_path / "one", "model")
    with pytest.raises(StoreError, match="holds a sample, wanted a model"):
        commit_folder(tmp_path / "one", "model", write_two)


def test_damage_is_told_with_the_file_both_digests_and_the_folder_to_remove(tmp_path: Path) -> None:
    folder = commit_folder(tmp_path / "one", "sample", write_two).folder
    remedy = f"remove {folder} and run the same command again, which makes it anew"
    path = folder / "a.bin"
    old = b"alpha" * 1000
    new = b"alphA" * 1000
    path.write_bytes(new)
    wanted, found = (hashlib.sha256(content).hexdigest()[:16] for content in (old, new))
    with pytest.raises(CorruptError) as caught:
        open_commit(folder)

    assert (
        str(caught.value)
        == f"{path} has SHA-256 {found}..., its manifest says {wanted}...; {remedy}"
    )
    path.write_bytes(b"short")
    with pytest.raises(CorruptError) as caught:
        open_commit(folder)

    assert str(caught.value) == f"{path} has 5 bytes, its manifest says 5000; {remedy}"
    path.write_bytes(old)
    (folder / "stranger").write_text("x")
    with pytest.raises(CorruptError) as caught:
        open_commit(folder)
    said = (
        f"{folder / 'stranger'} is not in its manifest: it was put there by something else; "
        f"{remedy}"
    )

    assert str(caught.value) == said
