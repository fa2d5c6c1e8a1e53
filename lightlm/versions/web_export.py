"""The web export: a page that runs the model in the browser, with the libraries it needs from npm.

The page asks no other server. The libraries' archives have pinned digests, and the store keeps what
the page takes of them.
"""

import base64
import hashlib
import html
import importlib.resources
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lightlm.errors import InputError
from lightlm.redaction import redact
from lightlm.store.stage import open_stage

KIND = "web-libraries"

PAGE_FILES = ("index.html", "page.css", "page.js")

SECONDS = 600
"""Seconds that npm gets to download one library."""

MOST_BYTES = 64 << 20
"""Bytes of a file in a library's archive, at most."""

NOTICE = """transformers.min.js: Transformers.js, Copyright Hugging Face, Apache-2.0 (LICENSE.txt)
ort-wasm-simd-threaded.*: ONNX Runtime, Copyright (c) Microsoft Corporation, MIT
"""


class Library(NamedTuple):
    """A package of npm: name, version, SHA-512 of its archive in base64, and the files it gives."""

    name: str
    version: str
    sha512: str
    files: Mapping[str, str]

    @property
    def archive(self) -> str:
        """The file's name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


LIBRARIES = (
    Library(
        "@huggingface/transformers",
        "4.3.2",
        "V3+dqf3iWlRYJ9I9GreM3zGQd0lAXnnoPeddmkOQYWAEE4l/+Fi6p7tx/qVUJlKQgLXGim2W76rTOzz+eC0i7g==",
        {
            "package/dist/transformers.min.js": "transformers.min.js",
            "package/LICENSE": "LICENSE.txt",
        },
    ),
    # The version that this release of transformers.js is built with.
    Library(
        "onnxruntime-web",
        "1.31.0-dev.20260914-8d85527a0",
        "Iy7rtadoBgxS/LLvDr3QW38DB1PNXRnr0GJMcL0TAt7c9qjgVQl83UlGCVyeAnK2InpmW8Uc3PL8XIuqtDeF6g==",
        {
            f"package/dist/ort-wasm-simd-threaded.{ending}": f"ort-wasm-simd-threaded.{ending}"
            for ending in ("mjs", "wasm")
        },
    ),
)


def provide_libraries(home: Path, folder: Path | None = None) -> Path:
    """Return the folder of the libraries' files: from the store, else from the archives in
    `folder`, else from npm.

    Raises:
        InputError: npm is missing or cannot be reached, or an archive has another digest.
    """

    def build(scratch: Path) -> dict[str, str]:
        with tempfile.TemporaryDirectory(prefix="lightlm-npm-") as downloads:
            for library in LIBRARIES:
                archive = find_archive(library, folder, Path(downloads))
                check_archive(library, archive)
                unpack(library, archive, scratch)
        (scratch / "NOTICE.txt").write_text(NOTICE, "utf-8")
        return {library.name: library.version for library in LIBRARIES}

    key = {library.name: library.sha512 for library in LIBRARIES}
    return open_stage(home, KIND, key, build).folder


def find_archive(library: Library, folder: Path | None, downloads: Path) -> Path:
    """Return the archive of a library in `folder`; without one, as npm downloads it.

    Raises:
        InputError: it is not there, or npm does not give it.
    """
    if folder is not None:
        path = folder / library.archive
        if not path.is_file():
            raise InputError(f"{folder} has no {library.archive}; {explain_libraries()}")
        return path

    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"the page wants libraries, and npm is missing; {explain_libraries()}")
    command = [npm, "pack", f"{library.name}@{library.version}", "--silent", "--ignore-scripts"]
    try:
        done = subprocess.run(
            command, cwd=downloads, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"npm has not downloaded {library.name} in {SECONDS} s; {explain_libraries()}"
        ) from None

    path = downloads / library.archive
    if done.returncode or not path.is_file():
        said = redact((done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[0])
        raise InputError(f"npm cannot download {library.name} ({said}); {explain_libraries()}")
    return path


def explain_libraries() -> str:
    """Return how the libraries come here without this machine's npm."""
    packages = " ".join(f"{library.name}@{library.version}" for library in LIBRARIES)
    return (
        f"where npm works, run `npm pack {packages}`, and give the folder of the files as "
        "--libraries FOLDER"
    )


def check_archive(library: Library, archive: Path) -> None:
    """Compare an archive's digest with the pinned one.

    Raises:
        InputError: it differs.
    """
    with archive.open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if digest != library.sha512:
        raise InputError(
            f"{archive.name} has the SHA-512 {digest[:16]}..., wanted {library.sha512[:16]}...; "
            f"{explain_libraries()}"
        )


def unpack(library: Library, archive: Path, folder: Path) -> None:
    """Write the files that the page takes of a library into `folder`.

    Raises:
        InputError: the archive lacks one.
    """
    with tarfile.open(archive) as tar:
        for member, name in library.files.items():
            try:
                file = tar.extractfile(member)
            except KeyError:
                file = None
            content = b"" if file is None else file.read(MOST_BYTES + 1)
            if not 0 < len(content) <= MOST_BYTES:
                raise InputError(f"{archive.name} has no usable {member}; {explain_libraries()}")
            (folder / name).write_bytes(content)


def write_page(
    folder: Path, libraries: Path, name: str, about: str, context: int, temperature: float
) -> None:
    """Write the page and its libraries into `folder`, whose model lies in `folder`/model."""
    values = {
        "name": name,
        "about": about,
        "context": str(context),
        "tokens": str(min(100, context // 2)),
        "temperature": f"{temperature:g}",
    }
    for file in PAGE_FILES:
        text = (importlib.resources.files("lightlm.versions") / "web" / file).read_text("utf-8")
        if file.endswith(".html"):
            for key, value in values.items():
                text = text.replace(f"{{{{{key}}}}}", html.escape(value))
        (folder / file).write_text(text, "utf-8")

    (folder / "lib").mkdir()
    for library in LIBRARIES:
        for file in library.files.values():
            shutil.copyfile(libraries / file, folder / "lib" / file)
    shutil.copyfile(libraries / "NOTICE.txt", folder / "lib" / "NOTICE.txt")


def read_temperature(folder: Path) -> float:
    """Return the temperature that a Hugging Face folder samples with; 0 where it is greedy."""
    values = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    return float(values.get("temperature", 1.0)) if values.get("do_sample") else 0.0
