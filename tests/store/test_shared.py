"""Tests of the shared store: what one home made another takes, verified; whatever it answers,
stages are made.
"""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lightlm.errors import CorruptError, ParameterError
from lightlm.params import StoreParams, load_params
from lightlm.store.commit import MANIFEST, open_commit
from lightlm.store.home import find_home
from lightlm.store.shared import Shareable, SharedStore, find_shared, open_filesystem, share_stages
from lightlm.store.stage import Stage, find_any, find_stage, open_stage

KEY = {"key": 1}


@dataclass(frozen=True)
class Described:
    """What the meta of this file's stages fills, beside what a stage itself says."""

    folder: Path
    fingerprint: str
    reused: bool
    size: int
    note: str | None
    seconds: float = 0.0


SAMPLES = Shareable(re.compile(r"content|empty|part-\d"), Described)


def build(folder: Path) -> Mapping[str, Any]:
    (folder / "content").write_bytes(b"made")
    (folder / "part-0").write_bytes(b"x" * 1000)
    (folder / "empty").write_bytes(b"")
    return {"size": 4, "note": None}


def build_never(folder: Path) -> Mapping[str, Any]:
    raise AssertionError(f"{folder} was built, though the shared store has it")


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield f"file://{tmp_path}/mnt/team" if request.param == "file" else "memory://team/lightlm"
    MemoryFileSystem.store.clear()


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what goes to another machine: to an empty LIGHTLM_HOME."""
    return lambda name: monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / name))


TOKENIZE = """
import json, sys
from pathlib import Path
from lightlm.data.shards import tokenize_subset
from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.params import load_params
from lightlm.store.home import find_home
from lightlm.store.shared import share_stages
params = load_params(dataset=sys.argv[1], overrides={"store.shared": sys.argv[2]})
home = find_home()
with share_stages(params.store, 600.0, lambda line: print(line, file=sys.stderr)):
    subset = materialize_subset(home, params.dataset)
    tokenizer = prepare_tokenizer(home, params.tokenizer, subset, [300, 400])
    shards = tokenize_subset(home, subset, tokenizer)
made = (subset, tokenizer, shards)
print(json.dumps([[stage.reused for stage in made], [stage.fingerprint for stage in made], str(shards.folder)]))
"""


def tokenize_at(home: Path, text: Path, url: str) -> tuple[list[bool], list[str], Path]:
    """Return what of subset, tokenizer and shards a process with this home reused, their names, and
    its shards.
    """
    environment = os.environ | {"LIGHTLM_HOME": str(home)}
    command = [sys.executable, "-c", TOKENIZE, str(text), url]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    reused, names, shards = json.loads(done.stdout)
    return reused, names, Path(shards)


def test_a_second_process_with_a_home_of_its_own_reuses_what_the_first_tokenized(
    tmp_path: Path,
) -> None:
    text = tmp_path / "text.txt"
    url = f"file://{tmp_path}/team"
    draw = random.Random(1)
    text.write_text(
        "\n\n".join(
            " ".join(draw.choices(("river", "stone", "rain", "and"), k=50)) for _ in range(200)
        )
    )

    first = tokenize_at(tmp_path / "one", text, url)
    second = tokenize_at(tmp_path / "two", text, url)
    assert (first[0], second[0]) == ([False] * 3, [True] * 3)
    assert first[1] == second[1] and second[2].is_relative_to(tmp_path / "two")
    assert open_commit(first[2]).digest == open_commit(second[2]).digest
    damaged = next((tmp_path / "team" / "shards" / first[1][2]).glob("[0-9a-f]*"))
    damaged.write_bytes(bytes(reversed(damaged.read_bytes())))
    third = tokenize_at(tmp_path / "three", text, url)
    assert (
        third[0] == [True, True, False]
        and open_commit(third[2]).digest == open_commit(first[2]).digest
    )


def open_at(
    url: str,
    make: Callable[[Path], Mapping[str, Any]] = build,
    said: list[str] | None = None,
    seconds: float = 60.0,
) -> Stage:
    said = [] if said is None else said
    with share_stages(
        StoreParams(shared=url, shared_fraction=0.5, block_cache_bytes=1 << 30),
        2 * seconds,
        said.append,
    ):
        return open_stage(find_home(), "samples", KEY, make, shareable=SAMPLES)


def list_objects(url: str) -> dict[str, bytes]:
    filesystem, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(root): filesystem.cat_file(path) for path in filesystem.find(root)}


def change(url: str, name: str, content: bytes | None) -> None:
    """Put `content` under the one object whose name ends so; None removes it."""
    filesystem, root = fsspec.core.url_to_fs(url)
    (path,) = (path for path in filesystem.find(root) if path.endswith(name))
    if content is None:
        filesystem.rm_file(path)
    else:
        filesystem.pipe_file(path, content)


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_manifest(url: str, changes: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest there as somebody would who knows how its own digest is made."""
    (content,) = (content for name, content in list_objects(url).items() if name.endswith(MANIFEST))
    manifest = json.loads(content)
    del manifest["sha256"]
    changes(manifest)
    manifest["sha256"] = digest_of(json.dumps(manifest, sort_keys=True).encode())
    change(url, MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())


def test_what_one_home_made_another_takes(url: str, move: Callable[[str], None]) -> None:
    said: list[str] = []
    made = open_at(url, said=said)
    move("other")
    taken = open_at(url, build_never, said)
    assert (made.reused, taken.reused) == (False, True)
    assert taken.folder != made.folder and taken.meta == made.meta == {"size": 4, "note": None}
    assert open_commit(taken.folder).digest == open_commit(made.folder).digest
    assert [line.split()[0] for line in said] == ["Uploaded", "Fetched"]
    assert open_at(url, build_never, said).folder == taken.folder and len(said) == 2, (
        "now it is here"
    )


def test_objects_are_named_by_their_content_and_nothing_else_is_left_there(url: str) -> None:
    name = open_at(url).fingerprint
    objects = list_objects(url)
    assert sorted(objects) == sorted(
        f"/samples/{name}/{n}" for n in (MANIFEST, digest_of(b"made"), digest_of(b"x" * 1000))
    )
    assert all(
        path.endswith(digest_of(content))
        for path, content in objects.items()
        if not path.endswith(MANIFEST)
    )


def test_any_of_several_stages_is_taken_those_that_are_here_first(
    url: str, move: Callable[[str], None]
) -> None:
    open_at(url)
    move("other")
    with share_stages(
        StoreParams(shared=url, shared_fraction=1.0, block_cache_bytes=1 << 30), 60.0, [].append
    ):
        assert find_any(find_home(), "samples", [{"key": 0}], SAMPLES) is None
        taken = find_any(find_home(), "samples", [{"key": 0}, KEY], SAMPLES)
        assert taken is not None and taken.reused
        here = open_stage(find_home(), "samples", {"key": 2}, build)
        found = find_any(find_home(), "samples", [KEY, {"key": 2}], SAMPLES)
        assert found is not None and found.folder == taken.folder
        found = find_any(find_home(), "samples", [{"key": 0}, {"key": 2}], SAMPLES)
        assert found is not None and found.folder == here.folder


def test_what_is_not_shareable_stays_here_and_without_a_url_nothing_is_shared(url: str) -> None:
    with share_stages(
        StoreParams(shared=url, shared_fraction=1.0, block_cache_bytes=1 << 30), 60.0, [].append
    ):
        open_stage(find_home(), "samples", KEY, build)
    with share_stages(
        StoreParams(shared=None, shared_fraction=1.0, block_cache_bytes=1 << 30), 60.0, [].append
    ) as shared:
        assert shared is None and find_shared() is None
        open_stage(find_home(), "samples", {"key": 2}, build, shareable=SAMPLES)
    assert list_objects(url) == {}


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        (MANIFEST, b"", "no manifest"),
        (MANIFEST, b"{}", "no manifest"),
        (MANIFEST, b" " * (1 << 24) + b" ", "longer"),
        (digest_of(b"made"), None, "content"),
        (digest_of(b"made"), b"", "content"),
        (digest_of(b"made"), b"mad", "content"),
        (digest_of(b"made"), b"evil", "content"),
    ],
)
def test_a_damaged_object_is_refused_made_anew_and_mended(
    url: str, move: Callable[[str], None], name: str, content: bytes | None, word: str
) -> None:
    whole = open_at(url).folder and list_objects(url)
    change(url, name, content)
    move("other")
    said: list[str] = []
    made = open_at(url, said=said)
    assert not made.reused and open_commit(made.folder).meta["size"] == 4
    assert word in said[0] and "made anew here" in said[0], said
    assert list_objects(url) == whole, "what is damaged is uploaded again"
    move("third")
    assert open_at(url, build_never).reused


def rename(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["files"].update({name: manifest["files"].pop("content")})


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "a path out of the folder": rename("../../../../content"),
    "an absolute path": rename("/tmp/content"),
    "a file in a folder": rename("part/content"),
    "a hidden file": rename(".content"),
    "a file of another name": rename("adapter_config.json"),
    "its own manifest": rename(MANIFEST),
    "a name with a line's end": rename("content\n"),
    "another kind": lambda manifest: manifest.update(kind="models"),
    "another version": lambda manifest: manifest.update(schema=99),
    "a digest that is a path": lambda manifest: manifest["files"]["content"].update(
        sha256="../../secret"
    ),
    "a digest that is none": lambda manifest: manifest["files"]["content"].update(sha256=7),
    "a size below zero": lambda manifest: manifest["files"]["content"].update(bytes=-1),
    "a size that is true": lambda manifest: manifest["files"]["content"].update(bytes=True),
    "a size that is smaller": lambda manifest: manifest["files"]["content"].update(bytes=3),
    "a size that is larger": lambda manifest: manifest["files"]["content"].update(bytes=5),
    "a fact of another type": lambda manifest: manifest["meta"].update(size="four"),
    "a fact too many": lambda manifest: manifest["meta"].update(other=1),
    "a fact too few": lambda manifest: manifest["meta"].pop("size"),
    "a folder of its own": lambda manifest: manifest["meta"].update(reused=True),
}


@pytest.mark.parametrize("lie", HOSTILE)
def test_a_manifest_that_lies_is_refused_though_its_digest_is_right(
    tmp_path: Path, move: Callable[[str], None], lie: str
) -> None:
    url = f"file://{tmp_path}/team"
    open_at(url)
    write_manifest(url, HOSTILE[lie])
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    move("other")
    said: list[str] = []
    made = open_at(url, said=said)
    assert not made.reused and (made.folder / "content").read_bytes() == b"made"
    assert "made anew here" in said[0], said
    stage = {made.folder / name for name in ("content", "part-0", "empty", MANIFEST)}
    new = {
        path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".")
    } - before

    assert new == stage, "nothing was written elsewhere"


def test_what_the_disk_has_no_room_for_is_not_fetched(
    tmp_path: Path, move: Callable[[str], None]
) -> None:
    url = f"file://{tmp_path}/team"
    open_at(url)
    write_manifest(url, lambda manifest: manifest["files"]["content"].update(bytes=10**18))
    move("other")
    said: list[str] = []
    assert not open_at(url, said=said).reused
    assert "MB stay free" in said[0]


def test_an_upload_that_was_cut_is_not_seen_and_is_completed_by_the_next(
    url: str, move: Callable[[str], None]
) -> None:
    open_at(url)
    whole = list_objects(url)
    change(url, MANIFEST, None)
    change(url, digest_of(b"x" * 1000), b"x")
    move("other")
    said: list[str] = []
    assert not open_at(url, said=said).reused
    assert list_objects(url) == whole and [line.split()[0] for line in said] == ["Uploaded"]


def test_a_second_upload_sends_nothing(url: str, move: Callable[[str], None]) -> None:
    made = open_at(url)
    said: list[str] = []
    SharedStore(url, 60.0, said.append).publish("samples", made.fingerprint, made.folder)
    assert said == []


@pytest.mark.parametrize("kind", ["a file where the folder should be", "a package that is missing"])
def test_storage_that_fails_is_told_once_and_stages_are_made(tmp_path: Path, kind: str) -> None:
    (tmp_path / "team").write_text("no folder")
    url = f"file://{tmp_path}/team" if kind.startswith("a file") else "abfs://box@account/team"
    said: list[str] = []
    with share_stages(
        StoreParams(shared=url, shared_fraction=1.0, block_cache_bytes=1 << 30), 60.0, said.append
    ):
        stages = [
            open_stage(find_home(), "samples", {"key": key}, build, shareable=SAMPLES)
            for key in range(3)
        ]
    assert not any(stage.reused for stage in stages)
    (line,) = said
    assert "left alone" in line and url in line


class Silent(MemoryFileSystem):
    """Storage that does not answer until it is let go."""

    protocol = "memory"
    gate = threading.Event()

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.gate.wait(60)
        return super()._open(path, *args, **kwargs)


def test_storage_that_does_not_answer_costs_no_more_than_its_time() -> None:
    fsspec.register_implementation("memory", Silent, clobber=True)
    said: list[str] = []
    Silent.gate.clear()

    try:
        with share_stages(
            StoreParams(shared="memory://team", shared_fraction=0.1, block_cache_bytes=1 << 30),
            2.0,
            said.append,
        ) as shared:
            stages = [
                open_stage(find_home(), "samples", {"key": key}, build, shareable=SAMPLES)
                for key in range(3)
            ]
        assert shared is not None and shared.take_seconds() >= 0.2 and shared.take_seconds() == 0.0
    finally:
        Silent.gate.set()
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)

    assert not any(stage.reused for stage in stages)
    (line,) = said
    assert "0.2 s" in line and "store.shared_fraction" in line
    assert all(find_stage(find_home(), "samples", {"key": key}) for key in range(3))


@pytest.mark.parametrize(
    "url",
    [
        "/mnt/team",
        "s3://",
        "http://example.com/team",
        "simplecache::s3://team/x",
        "s3://team/x::zip",
        "reference://team",
        "s3://key:secret@team/x",
        "s3://team/x?secret=1",
    ],
)
def test_a_url_that_is_none_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ParameterError, match=r"store\.shared is .*; give a URL such as"):
        load_params(overrides={"store.shared": url})
    monkeypatch.setenv("LIGHTLM_SHARED_STORE", url)
    with (
        pytest.raises(
            ParameterError, match=r"LIGHTLM_SHARED_STORE: shared is .*; give a URL such as"
        ),
        share_stages(load_params().store, 60.0, [].append),
    ):
        pass


def test_the_environment_names_the_store_where_params_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIGHTLM_SHARED_STORE", "memory://one")
    for params, url in (
        (load_params(), "memory://one"),
        (load_params(overrides={"store.shared": "s3://a/b/"}), "s3://a/b"),
    ):
        with share_stages(params.store, 60.0, [].append) as shared:
            assert shared is not None and shared.url == url and shared.seconds == pytest.approx(6.0)


def test_s3_needs_no_package_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    filesystem, root = open_filesystem("s3://team/lightlm")
    assert root == "team/lightlm" and "s3" in filesystem.protocol


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, None),
        ({"AWS_ENDPOINT_URL": "http://all"}, "http://all"),
        ({"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": "http://s3"}, "http://s3"),
    ],
)
def test_another_s3_than_amazons_is_named_by_amazons_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str | None
) -> None:
    pyarrow_fs = pytest.importorskip("pyarrow.fs")
    wanted: list[str | None] = []
    usual = pyarrow_fs.S3FileSystem

    def note(*, endpoint_override: str | None) -> Any:
        wanted.append(endpoint_override)
        return usual(endpoint_override=endpoint_override, region="us-east-1", anonymous=True)

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pyarrow_fs, "S3FileSystem", note)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    filesystem, path = open_filesystem("s3://team/lightlm")
    assert wanted == [endpoint]
    assert path == "team/lightlm"
    assert "s3" in filesystem.protocol


def test_googles_storage_needs_no_package_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow_fs = pytest.importorskip("pyarrow.fs")
    made: list[Any] = []

    def note() -> Any:
        made.append(pyarrow_fs.LocalFileSystem())
        return made[-1]

    monkeypatch.setattr(pyarrow_fs, "GcsFileSystem", note, raising=False)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    filesystem, path = open_filesystem("gs://team/lightlm")
    assert path == "team/lightlm"
    assert filesystem.fs is made[0]


def test_a_scheme_whose_package_is_missing_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(ImportError, match="adlfs"):
        open_filesystem("abfs://team/lightlm")


DIGEST = {"bytes": 4, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "shards"}, "there holds a 'shards', wanted samples"),
        (
            {"files": {"../content": DIGEST}},
            "there names a file that samples do not have: '../content'",
        ),
        (
            {"files": {"content": DIGEST | {"bytes": -1}}},
            "there gives no size and SHA-256 of content",
        ),
        (
            {"files": {"content": DIGEST | {"sha256": "0" * 63}}},
            "there gives no size and SHA-256 of content",
        ),
        ({"meta": {"size": "4", "note": None}}, "there says size='4', which samples do not say"),
        ({"meta": {"size": 4}}, "there does not say what samples say: note, size"),
        (
            {"meta": {"size": 4, "note": None, "reused": True}},
            "there does not say what samples say: note, size",
        ),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(change: Mapping[str, Any], words: str) -> None:
    fine = {"kind": "samples", "files": {"content": DIGEST}, "meta": {"size": 4, "note": None}}
    SAMPLES.check(fine, "samples", "there")
    with pytest.raises(CorruptError) as caught:
        SAMPLES.check({**fine, **change}, "samples", "there")
    assert str(caught.value) == words
