"""The shared store: stages on a network folder or in object storage, for several machines.

Only files of known names are read, as long as their manifest states and with its SHA-256, before
they are committed here. Nothing is listed there, and no name from there becomes a path, except
names of the writer's pattern. A stage that it refuses or has no time for is logged once and made
here.
"""

import dataclasses
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lightlm.errors import CorruptError, ParameterError
from lightlm.json_object import JsonObject
from lightlm.params import StoreParams, describe_validation
from lightlm.quantities import format_bytes, format_seconds
from lightlm.store.commit import MANIFEST, Commit, commit_folder, parse_manifest
from lightlm.store.space import check_space

ENVIRONMENT = "LIGHTLM_SHARED_STORE"

MANIFEST_BYTES = 1 << 24
"""Bytes of the longest manifest that is read: about 100,000 files."""

PIECE_BYTES = 1 << 24
"""Bytes of one request, which bound the memory of a download."""

Answer = TypeVar("Answer")


class _LateError(Exception):
    """The time for the shared store is over."""


def _is_of(value: Any, wanted: Any) -> bool:
    """Return whether a value of a manifest is of a field's type; of a model's if its values are the
    model's.
    """
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        try:
            wanted.model_validate(value)
        except ValidationError:
            return False
        return True
    return isinstance(value, wanted)


@dataclasses.dataclass(frozen=True)
class Shareable:
    """What of a kind of stage may come from elsewhere: files named like `files`, and a meta that
    fills `described`.
    """

    files: re.Pattern[str]
    described: Any = None
    """A dataclass; None where the meta is not read."""

    def check(self, manifest: Mapping[str, Any], kind: str, where: str) -> None:
        """Refuse a manifest that names other files, no sizes and digests, or other facts.

        Raises:
            CorruptError: the manifest is not of this kind.
        """
        if manifest["kind"] != kind:
            raise CorruptError(f"{where} holds a {manifest['kind']!r}, wanted {kind}")

        for name, entry in manifest["files"].items():
            if not self.files.fullmatch(name):
                raise CorruptError(f"{where} names a file that {kind} do not have: {name!r}")
            is_size = type(entry["bytes"]) is int and entry["bytes"] >= 0
            if not (
                is_size
                and isinstance(entry["sha256"], str)
                and re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
            ):
                raise CorruptError(f"{where} gives no size and SHA-256 of {name}")

        if self.described is None:
            return

        known = {field.name: field for field in dataclasses.fields(self.described)}
        for name, value in manifest["meta"].items():
            if name not in known or not _is_of(value, known[name].type):
                raise CorruptError(f"{where} says {name}={value!r}, which {kind} do not say")

        local = {"folder", "fingerprint", "reused"}
        needed = {
            name for name, field in known.items() if field.default is dataclasses.MISSING
        } - local
        if not needed <= manifest["meta"].keys() or local & manifest["meta"].keys():
            raise CorruptError(f"{where} does not say what {kind} say: {', '.join(sorted(needed))}")


class SharedStore:
    """One run's door to the store at `url`, for `seconds` in all; `report` gets a line on what
    came, went and failed.
    """

    def __init__(self, url: str, seconds: float, report: Callable[[str], None]) -> None:
        self.url = url.rstrip("/")
        self.seconds = self._left = seconds
        self._report = report
        self._untaken = 0.0
        self._is_off = False
        self._stop = threading.Event()
        self._missing: set[str] = set()
        self._damaged: set[str] = set()
        self._filesystem: Any = None
        self._root = ""

    def take_seconds(self) -> float:
        """Return the seconds spent here since the last call: a ledger's."""
        taken = self._untaken
        self._untaken = 0.0
        return taken

    def fetch(self, kind: str, name: str, folder: Path, shareable: Shareable) -> Commit | None:
        """Return the stage `name`, now committed as `folder`; None where it is not there, or not to
        be had.
        """
        if name in self._missing:
            return None

        where = f"{self.url}/{kind}/{name}"
        began = time.monotonic()
        with self._spend(f"fetching {kind} {name}"):
            try:
                manifest = self._within_time(lambda: self._read_manifest(kind, name, shareable))
                if manifest is None:
                    self._missing.add(name)
                    return None
                num_bytes = sum(entry["bytes"] for entry in manifest["files"].values())
                check_space(folder, num_bytes, f"fetching {where}")

                def download(scratch: Path) -> Mapping[str, Any]:
                    self._within_time(
                        lambda: self._download(f"{kind}/{name}", manifest["files"], scratch)
                    )
                    return manifest["meta"]

                commit = commit_folder(folder, kind, download)
            except CorruptError as error:
                self._missing.add(name)
                self._damaged.add(name)
                self._report(f"{error.damage}: not taken, made anew here")
                return None
            self._report(f"Fetched {kind} {name}: {_format(num_bytes, began)} from {self.url}")
            return commit

        return None

    def publish(self, kind: str, name: str, folder: Path) -> None:
        """Upload a committed stage unless it is there; the manifest last, so that a part of one is
        nothing.
        """
        began = time.monotonic()
        with self._spend(f"uploading {kind} {name}"):
            num_bytes = self._within_time(
                lambda: self._upload(f"{kind}/{name}", folder, name in self._damaged)
            )
            if num_bytes is not None:
                self._report(f"Uploaded {kind} {name}: {_format(num_bytes, began)} to {self.url}")

    @contextmanager
    def _spend(self, what: str) -> Iterator[None]:
        """Count the time inside; say once what fails in it, and leave the store alone
        from then on.
        """
        began = time.monotonic()
        try:
            yield
        except _LateError:
            self._leave(
                f"with {what}, more than the {self.seconds:.1f} s were over that "
                "store.shared_fraction allows"
            )
        except Exception as error:  # noqa: BLE001  (every kind of storage has errors of its own, and none ends a run)
            self._leave(
                f"{what} failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
            )
        finally:
            self._untaken += time.monotonic() - began

    def _leave(self, reason: str) -> None:
        if not self._is_off:
            self._is_off = True
            self._report(f"The shared store {self.url} is left alone from here on: {reason}")

    def _within_time(self, work: Callable[[], Answer]) -> Answer:
        """Return what `work` returns, in a thread that is left behind when the time is over:
        storage may not answer.
        """
        if self._is_off:
            raise _LateError

        future: Future[Answer] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  (carried over to the caller)
                future.set_exception(error)

        began = time.monotonic()
        threading.Thread(target=run, name="shared store", daemon=True).start()
        try:
            return future.result(max(0.0, self._left))
        except TimeoutError:
            if future.done():
                raise
            raise _LateError from None
        finally:
            self._left -= time.monotonic() - began
            if not future.done():
                self._stop.set()

    def _connect(self) -> tuple[Any, str]:
        if self._filesystem is None:
            self._filesystem, self._root = open_filesystem(self.url)
        return self._filesystem, self._root

    def _read_manifest(self, kind: str, name: str, shareable: Shareable) -> JsonObject | None:
        filesystem, root = self._connect()
        try:
            with filesystem.open(f"{root}/{kind}/{name}/{MANIFEST}", "rb") as file:
                content = file.read(MANIFEST_BYTES + 1)
        except FileNotFoundError:
            return None

        where = Path(f"{self.url}/{kind}/{name}")
        if len(content) > MANIFEST_BYTES:
            raise CorruptError(f"{where / MANIFEST} is longer than {MANIFEST_BYTES:,} bytes")

        manifest = parse_manifest(content, where)
        shareable.check(manifest, kind, f"{self.url}/{kind}/{name}/{MANIFEST}")
        return manifest

    def _download(self, place: str, files: Mapping[str, Any], scratch: Path) -> None:
        filesystem, root = self._connect()
        for name, entry in files.items():
            left = entry["bytes"]
            digest = hashlib.sha256()
            with (scratch / name).open("xb") as file:
                for piece in self._read(filesystem, f"{root}/{place}/{entry['sha256']}", left):
                    left -= len(piece)
                    digest.update(piece)
                    file.write(piece)
            if left or digest.hexdigest() != entry["sha256"]:
                raise CorruptError(
                    f"{self.url}/{place} has another {name} than its manifest says (size or "
                    "SHA-256)"
                )

    def _read(self, filesystem: Any, path: str, num_bytes: int) -> Iterator[bytes]:
        """Yield at most `num_bytes` of an object, in pieces; nothing where it is missing or the
        time is over.
        """
        if not num_bytes:  # nor is it uploaded
            return

        with (
            suppress(FileNotFoundError),
            filesystem.open(path, "rb", block_size=PIECE_BYTES) as remote,
        ):
            while (
                num_bytes
                and (piece := remote.read(min(num_bytes, PIECE_BYTES)))
                and not self._stop.is_set()
            ):
                num_bytes -= len(piece)
                yield piece

    def _upload(self, place: str, folder: Path, is_damaged: bool) -> int | None:
        """Return the bytes sent; None where all of it is there."""
        filesystem, root = self._connect()
        if not is_damaged and _find_size(filesystem, f"{root}/{place}/{MANIFEST}") is not None:
            return None

        files = parse_manifest((folder / MANIFEST).read_bytes(), folder)["files"]
        sent = 0
        for name, entry in files.items():
            path = f"{root}/{place}/{entry['sha256']}"
            if entry["bytes"] and (is_damaged or _find_size(filesystem, path) != entry["bytes"]):
                if self._stop.is_set():
                    return None
                put_file(filesystem, folder / name, path)
                sent += entry["bytes"]

        put_file(filesystem, folder / MANIFEST, f"{root}/{place}/{MANIFEST}")
        return sent


@contextmanager
def share_stages(
    params: StoreParams, budget_seconds: float, report: Callable[[str], None]
) -> Iterator[SharedStore | None]:
    """Let the stages that are opened inside come from, and go to, the shared store of `params` or
    the environment.

    Raises:
        ParameterError: its URL is none that may be used.
    """
    named = params.shared or os.environ.get(ENVIRONMENT, "").strip() or None
    try:
        url = StoreParams.model_validate(params.model_dump() | {"shared": named}).shared
    except ValidationError as error:
        raise ParameterError(f"{ENVIRONMENT}: {describe_validation(error)}") from None

    shared = (
        None if url is None else SharedStore(url, params.shared_fraction * budget_seconds, report)
    )
    token = _SHARED.set(shared)

    try:
        yield shared
    finally:
        _SHARED.reset(token)


def find_shared() -> SharedStore | None:
    """Return the shared store of this run; None where there is none."""
    return _SHARED.get()


_SHARED: ContextVar[SharedStore | None] = ContextVar("shared", default=None)


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it.

    S3 and Google's storage need no further package: without s3fs or gcsfs, the one that pyarrow
    brings is taken.
    """
    from fsspec.core import url_to_fs

    scheme, _, path = url.partition("://")
    try:
        return url_to_fs(
            url, skip_instance_cache=True, **({"auto_mkdir": True} if scheme == "file" else {})
        )
    except ImportError:
        if scheme not in ("s3", "gs"):
            raise

    import pyarrow.fs
    from fsspec.implementations.arrow import ArrowFSWrapper

    if scheme == "gs":
        return ArrowFSWrapper(pyarrow.fs.GcsFileSystem()), path

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return ArrowFSWrapper(pyarrow.fs.S3FileSystem(endpoint_override=endpoint)), path


def _find_size(filesystem: Any, path: str) -> int | None:
    try:
        return filesystem.info(path)["size"]
    except FileNotFoundError:
        return None


def put_file(filesystem: Any, source: Path, path: str) -> None:
    """Upload a file. Object storage shows it when it is whole; a folder would show a part, so it is
    renamed there.
    """
    is_folder = "file" in filesystem.protocol
    target = f"{path}.{secrets.token_hex(8)}.tmp" if is_folder else path
    # Not put_file: on pyarrow's it asks for the bucket first, for which a key may have no right.
    with source.open("rb") as file, filesystem.open(target, "wb") as remote:
        shutil.copyfileobj(file, remote, PIECE_BYTES)
    if is_folder:
        filesystem.mv(target, path)


def _format(num_bytes: int, began: float) -> str:
    return f"{format_bytes(num_bytes)} in {format_seconds(time.monotonic() - began)}"
