"""What constraints.txt pins, what of it the image installs, and what requirements.lock says of each
pin's files.

python -m tests.stack.pins image|development    # the pins of that part, as bin/lock reads them
"""

import re
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
DEVELOPMENT = "# For development and tests, not in the image."
"""The line of requirements.lock between its two parts. The Dockerfile reads until there."""

UNPINNED = {"torch", "pip"}
"""torch's build depends on the machine: bin/bootstrap and the Dockerfile name it and its index. pip
is Python's.
"""

BUILD = "setuptools"
"""What builds LightLM's own package, in the image, too."""


def normalize(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins() -> dict[str, str]:
    """Return {name: version} of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {normalize(name): version for name, version in pairs}


def read_lock() -> tuple[dict[str, tuple[str, list[str]]], dict[str, tuple[str, list[str]]]]:
    """Return {name: (version, digests of its files)} of requirements.lock: the image's part and the
    development's.
    """
    parts = (ROOT / "requirements.lock").read_text("utf-8").split(f"{DEVELOPMENT}\n")
    image, development = (
        {
            normalize(name): (version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", digests))
            for name, version, digests in re.findall(
                r"^([\w.-]+)==(\S+)((?: \\\n    --hash=\S+)*)$", part, re.M
            )
        }
        for part in parts
    )
    return image, development


def list_needed(names: list[str]) -> set[str]:
    """Return all distributions that these need here, with what they need themselves."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        extras = [*requirement.extras, ""]
        key = (normalize(requirement.name), frozenset(extras))
        if key in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(key)
        for text in distribution(requirement.name).requires or []:
            inner = Requirement(text)
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in extras
            ):
                inner.marker = None
                waiting.append(inner)

    return {name for name, _ in found}


def list_image() -> set[str]:
    """Return the distributions that the image has, but for what is UNPINNED."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    needed = list_needed([*project["dependencies"], *optional["postgres"], *optional["s3"]])
    return (needed | {BUILD}) - UNPINNED


def list_development() -> set[str]:
    """Return the distributions that everything here needs, but for what is UNPINNED."""
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    return list_image() | list_needed(optional["dev"]) - UNPINNED - {"lightlm"}


if __name__ == "__main__":
    image = list_image()
    for name, version in sorted(read_pins().items()):
        if (name in image) == (sys.argv[1] == "image"):
            sys.stdout.write(f"{name}=={version}\n")
