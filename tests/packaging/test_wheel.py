"""The wheel works where no checkout is: built from the sdist, installed into a bare environment,
used to the end.

make wheel-test
"""

import importlib.util
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import write_hostile_modules, write_paragraph

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *(
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "CITATION.cff",
    ),
    *("prefect.yaml", "constraints.txt", "requirements.lock", "lightlm", "flows", "params", "docs"),
)
BUILD = (
    "import sys; from setuptools import build_meta as b; print(getattr(b, "
    "sys.argv[1])(sys.argv[2]))"
)
MODEL = ("--model", "models:/lightlm/1")
SECONDS = 240
"""Only bounds a failure."""

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(600)]


def build(kind: str, source: Path, target: Path) -> Path:
    """Return the sdist or the wheel of a folder, built with what is installed here."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", BUILD, f"build_{kind}", str(target)],
        cwd=source, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from the unpacked sdist: what the sdist lacks, the wheel lacks."""
    folder = tmp_path_factory.mktemp("build")
    checkout = folder / "checkout"
    checkout.mkdir()

    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, checkout / name)

    sdist = build("sdist", checkout, folder)
    shutil.unpack_archive(sdist, folder, filter="data")
    return build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)


@dataclass(frozen=True)
class Installed:
    """LightLM in an environment of its own, used from an empty folder."""

    environment: Path
    folder: Path

    def run(self, *words: object, **variables: str) -> str:
        """Return what a command prints; it must end well."""
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM", "PYTHON"))
        }
        own = {
            "LIGHTLM_HOME": str(self.folder / "home"),
            "PREFECT_PROFILES_PATH": str(self.folder / "none.toml"),
        }

        program = (
            self.environment / ("Scripts" if sys.platform == "win32" else "bin") / str(words[0])
        )
        done = subprocess.run(
            [program, *map(str, words[1:])], env=kept | own | variables, cwd=self.folder / "work",
            stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", timeout=SECONDS, check=False,
        )  # fmt: skip

        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Return the wheel in a bare environment that sees this one's other packages, and nothing of
    the checkout.
    """
    folder = tmp_path_factory.mktemp("installed")
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    found = Installed(environment, folder)
    (folder / "work").mkdir()
    packages = Path(
        found.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )

    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(environment)]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True, timeout=SECONDS
    )
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    (packages / "others.pth").write_text(str(Path(torch.origin).parents[1]))
    write_hostile_modules(folder / "work")

    return found


@pytest.fixture(scope="module")
def summary(installed: Installed) -> dict[str, Any]:
    """Return what the first training says of itself, with a preset of one's own."""
    choose = random.Random(0)
    work = installed.folder / "work"
    (work / "text.txt").write_text(
        "\n\n".join(write_paragraph(choose) for _ in range(800)), encoding="utf-8"
    )
    (work / "mine.yaml").write_text(
        "training: {compile: 'off'}\ntokenizer: {vocab_size: 512}\n", encoding="utf-8"
    )

    words = [
        "train",
        "--hours",
        0.004,
        "--dataset",
        "text.txt",
        "--name",
        "lightlm",
        "--preset",
        "./mine.yaml",
        "--json",
    ]

    summary = json.loads(installed.run("lightlm", *words))
    installed.run("lightlm", "sync")  # a busy machine registers the version after the budget
    return summary


def test_a_wheel_holds_packages_of_ours_alone_and_every_file_that_they_read(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "lightlm",
        "lightlm_flows",
        "lightlm_params",
    }

    needed = {"lightlm/budget/calibration.json", "lightlm/py.typed", "lightlm_flows/py.typed"}
    needed |= {
        "lightlm_params/py.typed",
        "lightlm_flows/prefect.yaml",
        "lightlm_params/base.yaml",
        "lightlm_params/machines/h100.yaml",
        "lightlm/generation/__init__.py",
    }

    assert needed - set(names) == set()


def test_a_package_page_of_the_wheel_has_no_relative_link(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = archive.read(name).decode()
    for line in (
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        "Description-Content-Type: text/markdown",
        "# LightLM",
    ):
        assert f"\n{line}\n" in metadata
    targets = re.findall(r"\]\(([^)]+)\)", metadata)
    assert [target for target in targets if "://" not in target] == []


def test_the_installed_package_is_the_wheel_and_says_one_version(installed: Installed) -> None:
    place = installed.run(
        "python", "-P", "-c", "import lightlm, lightlm_flows; print(lightlm.__file__)"
    ).strip()
    version = installed.run("python", "-P", "-c", "import lightlm; print(lightlm.__version__)")
    assert Path(place).is_relative_to(installed.environment)
    assert installed.run("lightlm", "--version") == f"lightlm {version}"
    assert installed.run("python", "-P", "-m", "lightlm", "--version") == f"lightlm {version}"


def test_the_machine_is_checked(installed: Installed) -> None:
    assert json.loads(installed.run("lightlm", "check", "--json"))["checks"]


def test_a_model_is_trained_by_a_preset_of_ones_own(
    installed: Installed, summary: dict[str, Any]
) -> None:
    (version,) = json.loads(installed.run("lightlm", "models", "--json"))["models"]
    assert version["version"] == "1"
    assert 256 < summary["plan"]["model"]["vocab_size"] <= 512


def test_the_model_is_used(installed: Installed, summary: dict[str, Any]) -> None:
    assert installed.run(
        "lightlm", "generate", "The quiet river", "--max-new-tokens", 8, *MODEL
    ).strip()


@pytest.mark.slow
def test_the_model_is_reported_and_exported(installed: Installed, summary: dict[str, Any]) -> None:
    assert installed.run("lightlm", "report")
    installed.run("lightlm", "export", "exported", "--to", "hf", *MODEL)
    assert (installed.folder / "work" / "exported" / "config.json").is_file()


@pytest.fixture(scope="module")
def service(installed: Installed, summary: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the variables that lead to the service, started by `lightlm up`, which deploys the
    flows.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        ports = one.getsockname()[1], other.getsockname()[1]
    installed.run("lightlm", "up", "--prefect-port", ports[0], "--mlflow-port", ports[1])
    lines = installed.run("lightlm", "up", "--print-env").splitlines()
    yield dict(line.removeprefix("export ").replace("'", "").split("=", 1) for line in lines)
    installed.run("lightlm", "down")


@pytest.mark.slow
def test_a_deployed_flow_runs_from_the_wheel(installed: Installed, service: dict[str, str]) -> None:
    words = [
        "deployment",
        "run",
        "generate-flow/generate-flow",
        "--param",
        "prompt=The river",
        "--watch",
    ]

    words += ["--param", "model=models:/lightlm/1"]
    assert "Flow run finished successfully" in installed.run(
        "python", "-P", "-m", "prefect", *words, **service
    )


def test_no_command_ran_code_of_the_folder_it_stood_in(
    installed: Installed, summary: dict[str, Any]
) -> None:
    assert not (installed.folder / "work" / "RAN").exists()
