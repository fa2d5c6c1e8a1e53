"""Committed folders at a URL, in a folder or in object storage: their manifests, files, and ranges
of files, asked for again where the storage fails.

A file lies under its SHA-256, as in the shared store, so that what is written twice is the same
object.
"""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightlm.errors import CorruptError, StoreError
from lightlm.json_object import JsonObject
from lightlm.redaction import first_line
from lightlm.store.commit import MANIFEST, parse_manifest, render_manifest
from lightlm.store.shared import MANIFEST_BYTES, Shareable, open_filesystem, put_file

WAITS = (1.0, 2.0, 4.0, 8.0, 8.0)
"""Seconds before each further try; the same as for the Hub's files."""

FINAL = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "Forbidden")
"""Words of errors that another try will not mend."""

Answer = TypeVar("Answer")


@functools.lru_cache(maxsize=8)
def connect(url: str) -> tuple[Any, str]:
    """Return `open_filesystem` of a bucket or a first folder: once, as it takes up to a second."""
    return open_filesystem(url)


class RemoteFolder:
    """A folder at `url`. Credentials come from the environment, never from the URL."""

    def __init__(self, url: str, waits: Sequence[float] = WAITS) -> None:
        self.url = url.rstrip("/")
        self._waits = waits

    def __truediv__(self, name: str) -> "RemoteFolder":
        """Return a folder in this one."""
        return RemoteFolder(f"{self.url}/{name}", self._waits)

    def connect(self) -> tuple[Any, str]:
        """Return fsspec's file system, and the path of this folder in it.

        Raises:
            StoreError: a package for this kind of URL is missing.
        """
        scheme, _, path = self.url.partition("://")
        below = path.lstrip("/")
        first, _, rest = below.partition("/")
        try:
            filesystem, root = connect(f"{scheme}://{path[: len(path) - len(below)]}{first}")
        except ImportError as error:
            raise StoreError(f"{self.url} cannot be opened: {error}") from None
        return filesystem, f"{root}/{rest}" if rest else root

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes of a file from `start` to `stop`, all of them.

        Raises:
            FileNotFoundError: there is no such file.
            StoreError: they did not come in any try.
        """
        filesystem, root = self.connect()

        def ask() -> bytes:
            # cat_file of pyarrow's file systems reads the whole object, whatever is asked for.
            with filesystem.open(f"{root}/{name}", "rb", **_read_plainly(filesystem)) as file:
                file.seek(start)
                data = file.read() if stop is None else file.read(stop - start)
            if stop is not None and len(data) != stop - start:
                raise OSError(f"{len(data):,} bytes came instead of {stop - start:,}")
            return data

        return self._try(f"reading {self.url}/{name}", ask)

    def read_manifest(self, kind: str, shareable: Shareable) -> tuple[JsonObject, str] | None:
        """Return the manifest of a committed folder of `kind`, and its SHA-256; None where there is
        none.

        Raises:
            CorruptError: it is damaged, or of another kind.
            StoreError: it did not come in any try.
        """
        try:
            content = self.read(MANIFEST)
        except FileNotFoundError:
            return None

        where = f"{self.url}/{MANIFEST}"
        if len(content) > MANIFEST_BYTES:
            raise CorruptError(f"{where} is longer than {MANIFEST_BYTES:,} bytes")
        try:
            manifest = parse_manifest(content, Path())
        except CorruptError as error:
            raise CorruptError(f"{self.url}: {error.damage}", "write it again") from None
        shareable.check(manifest, kind, where)
        return manifest, hashlib.sha256(content).hexdigest()

    def download(self, files: Mapping[str, Any], folder: Path) -> None:
        """Write the files of a manifest to a folder that the store hands out.

        Raises:
            CorruptError: one is missing, or has another SHA-256 than the manifest says.
        """
        for name, entry in files.items():
            try:
                content = self.read(entry["sha256"], 0, entry["bytes"]) if entry["bytes"] else b""
            except FileNotFoundError:
                raise CorruptError(f"{self.url} has no {name}, which its manifest names") from None
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                raise CorruptError(
                    f"{self.url} has another {name} than its manifest says (SHA-256)"
                )
            (folder / name).write_bytes(content)

    def list_files(self) -> list[tuple[str, int, str]]:
        """Return the files below this folder by name: name, bytes, and what changes with them.

        Raises:
            StoreError: it cannot be listed.
        """
        filesystem, root = self.connect()
        found = self._try(f"listing {self.url}", lambda: filesystem.find(root, detail=True))
        return [
            (
                path.removeprefix(root).lstrip("/"),
                entry["size"],
                str(entry.get("ETag") or entry.get("mtime")),
            )
            for path, entry in sorted(found.items())
            if entry["type"] == "file"
        ]

    def put(self, path: Path) -> JsonObject:
        """Upload a file under its SHA-256 unless it is there; return its entry of a manifest."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = path.stat().st_size
        if num_bytes and self.find_size(digest) != num_bytes:
            filesystem, root = self.connect()
            self._try(f"writing {self.url}", lambda: put_file(filesystem, path, f"{root}/{digest}"))
        return {"bytes": num_bytes, "sha256": digest}

    def put_json(self, name: str, values: Mapping[str, Any], scratch: Path) -> None:
        """Upload values as JSON under a name, by way of a file in `scratch`."""
        self.put_bytes(name, json.dumps(values, sort_keys=True).encode(), scratch)

    def read_json(self, name: str) -> Any:
        """Return what `put_json` wrote.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return json.loads(self.read(name))

    def put_manifest(
        self, kind: str, meta: Mapping[str, Any], files: Mapping[str, Any], scratch: Path
    ) -> str:
        """Upload a manifest, which makes a folder of what was put; return its SHA-256."""
        content = render_manifest(kind, meta, files)
        self.put_bytes(MANIFEST, content, scratch)
        return hashlib.sha256(content).hexdigest()

    def find_size(self, name: str) -> int | None:
        """Return the bytes of a file; None where there is none."""
        filesystem, root = self.connect()

        def ask() -> int | None:
            try:
                return filesystem.info(f"{root}/{name}")["size"]
            except FileNotFoundError:
                return None

        return self._try(f"looking for {self.url}/{name}", ask)

    def remove(self, names: Iterable[str]) -> None:
        """Remove folders in this one, with all that they hold."""
        filesystem, root = self.connect()
        for name in names:
            if filesystem.exists(f"{root}/{name}"):
                filesystem.rm(f"{root}/{name}", recursive=True)

    def put_bytes(self, name: str, content: bytes, scratch: Path) -> None:
        """Upload bytes under a name, by way of a file in `scratch`."""
        path = scratch / Path(name).name
        path.write_bytes(content)
        filesystem, root = self.connect()
        self._try(
            f"writing {self.url}/{name}", lambda: put_file(filesystem, path, f"{root}/{name}")
        )

    def _try(self, what: str, work: Callable[[], Answer]) -> Answer:
        for wait in (*self._waits, None):
            try:
                return work()
            except FileNotFoundError:
                raise
            except Exception as error:  # noqa: BLE001  (every kind of storage has errors of its own)
                reason = first_line(error)
                if wait is None or any(word in reason for word in FINAL):
                    raise StoreError(
                        f"{what} failed ({type(error).__name__}: {reason}); check the URL, the "
                        "network, and the credentials in the environment"
                    ) from None
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")


def _read_plainly(filesystem: Any) -> JsonObject:
    """Return the options that let fsspec's own files read what is asked for and no more."""
    is_wrapped = type(filesystem).__name__ == "ArrowFSWrapper" or "file" in filesystem.protocol
    return {} if is_wrapped else {"cache_type": "none"}
