"""Checks of the installation: packages, formats to export, torch, the compiler, bytecode."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from lightlm.redaction import first_line
from lightlm.system import Check, Device, fail, passed, warn

REASONS = {
    "fastapi": "Prefect's API does not start with others, and `pip check` passes them",
    "sqlalchemy": "no schedule of Prefect fires with others, and `pip check` passes them",
}
"""Reasons of the bounds that are ours alone: no package states them."""

INSTALL = "install what is pinned: make setup, or pip install -c constraints.txt -e ."


def find_version(name: str) -> str | None:
    """Return a package's installed version; None where it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_installation() -> Check:
    """Return version and place of this LightLM."""
    place = Path(__file__).resolve().parents[3]
    return passed(
        "LightLM", f"{importlib.metadata.version('lightlm')} in {place}, Python in {sys.prefix}"
    )


def check_packages() -> Iterator[Check]:
    """Yield a finding for each package that is missing or out of bounds; else one for all."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in importlib.metadata.requires("lightlm") or []]
    wanted = [
        requirement
        for requirement in wanted
        if not requirement.marker or requirement.marker.evaluate()
    ]

    is_content = True
    for requirement in wanted:
        name = requirement.name
        bounds = str(requirement.specifier)
        found = find_version(name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            is_content = False
            reason = f"; {REASONS[name]}" if name in REASONS else ""
            message = f"{name} is {found or 'missing'}, wanted {bounds}{reason}"
            yield fail("Packages", message, f"pip install '{name}{bounds}', or {INSTALL}")

    if is_content:
        phrase = ", ".join(
            f"{name} {find_version(name)}"
            for name in ("prefect", "mlflow", "fastapi", "sqlalchemy")
        )
        yield passed("Packages", f"all {len(wanted)} within their bounds; {phrase}")


def check_exports() -> Check:
    """Return which formats `lightlm export` can write."""
    missing = [
        name for name in ("gguf", "onnx", "onnxscript", "onnxruntime") if find_version(name) is None
    ]
    if missing:
        message = f"hf; for gguf and onnx {', '.join(missing)} missing"
        return warn("Export", message, "if you want them: pip install 'lightlm[export]'")
    return passed("Export", "hf, gguf, onnx")


def check_torch() -> tuple[list[Device], Check]:
    """Return the devices that torch sees, none if it does not load, and the finding."""
    try:
        import torch

        from lightlm.training.device import describe_devices

        devices = describe_devices()
    except (ImportError, OSError, RuntimeError) as error:
        return [], fail("torch", f"does not load: {first_line(error)}", INSTALL)

    cuda = torch.version.cuda
    build = (
        f"CUDA {cuda}" if cuda else f"ROCm {torch.version.hip}" if torch.version.hip else "no CUDA"
    )
    message = (
        f"{torch.__version__} ({build}), {torch.get_num_threads()} threads, sees "
        f"{', '.join(d.kind for d in devices)}"
    )

    if len(devices) == 1 and shutil.which("nvidia-smi"):
        fix = (
            "look at nvidia-smi"
            if cuda
            else "install a CUDA build: pip install --force-reinstall torch"
        )
        return devices, warn("torch", f"{message}, and nvidia-smi is here", fix)

    return devices, passed("torch", message)


def check_compiler() -> Check:
    """Return whether torch.compile finds a C++ compiler and Python's headers."""
    import sysconfig

    names = (
        [os.environ["CXX"]]
        if os.environ.get("CXX")
        else ["cl"]
        if os.name == "nt"
        else ["g++", "clang++", "c++"]
    )

    found = next((path for path in map(shutil.which, names) if path), None)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if found and headers.is_file():
        return passed("C++ compiler", f"{found}, for torch.compile")

    missing = f"no {' or '.join(names)}" if not found else f"no {headers}"
    return warn(
        "C++ compiler",
        f"{missing}: layers are not compiled, which costs a tenth to a third of the speed in long "
        "runs",
        "on Debian: apt-get install g++ python3-dev; on macOS: xcode-select --install",
    )


def check_bytecode() -> Check:
    """Return whether Python keeps the bytecode of what it imports."""
    if sys.dont_write_bytecode:
        message = (
            "is not kept: every start compiles torch and Prefect anew, several seconds of each run"
        )
        return warn("Bytecode", message, "unset PYTHONDONTWRITEBYTECODE")
    return passed("Bytecode", "is kept")
