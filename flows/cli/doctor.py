"""What `lightlm doctor` looks at: the installation, this machine, what is stored, the servers, the
network.

Looks and changes nothing that lasts; each line says what to do where it does not pass. No check
ends another.
"""

import importlib.metadata
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

from lightlm.counting import count
from lightlm.errors import LightLMError
from lightlm.params import load_params
from lightlm.redaction import first_line, redact
from lightlm.store.home import find_home
from lightlm.system import Check, Device, check_system
from lightlm_flows.prefect_api import embedded
from lightlm_flows.service.record import PARTS, read_service
from lightlm_flows.service.servers import name_service_folder

REASONS = {
    "fastapi": "Prefect's API does not start with others, and `pip check` is content with them",
    "sqlalchemy": "no schedule of Prefect fires with others, and `pip check` is content with them",
}
"""Bounds of ours that no package of its own states."""

HUB_SECONDS = 5.0
CLOCK_SECONDS = 60.0
"""Between this machine's clock and the Hub's, above which records of several machines are out of
order.
"""

EARLIEST = 1_735_689_600.0
"""Seconds since 1970, the beginning of 2025: before it, a clock was never set."""

QUICK_BYTES = 500_000_000
"""What is stored is read and compared with its digests up to here, a second or two; above, only its
manifests.
"""

INSTALL = "install what is pinned: make setup, or pip install -c constraints.txt -e ."


def examine() -> Iterator[Check]:
    """Yield the checks in the order of a run: what is installed, the machine, the folder, the
    servers, the network.
    """
    yield check_installation()
    yield from check_packages()
    yield check_exports()
    devices, checked = check_torch()
    yield checked
    yield check_compiler()
    yield check_bytecode()

    try:
        home = find_home()
    except LightLMError as error:
        yield fail("LIGHTLM_HOME", str(error), "set LIGHTLM_HOME to a folder that you can write to")
    else:
        # Python and the devices, the memory and the disk: what every run begins with.
        yield from check_system(load_params(), home, devices).checks if devices else []
        checks = (
            check_home,
            check_secrets,
            check_store,
            check_service,
            check_mlflow,
            check_versions,
            check_prefect,
        )
        for check in checks:
            yield check(home)

    hub, offset_seconds = check_hub()
    yield hub
    yield check_clock(offset_seconds)


def check_installation() -> Check:
    """Return which LightLM this is, and where."""
    place = Path(__file__).resolve().parents[2]
    return passed(
        "LightLM", f"{importlib.metadata.version('lightlm')} in {place}, Python in {sys.prefix}"
    )


def check_packages() -> Iterator[Check]:
    """Yield a line on every package that is missing or out of its bounds; else one line on all of
    them.
    """
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
        told = ", ".join(
            f"{name} {find_version(name)}"
            for name in ("prefect", "mlflow", "fastapi", "sqlalchemy")
        )
        yield passed("Packages", f"all {len(wanted)} within their bounds; {told}")


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
    """Return the devices that torch sees, none where it does not load, and its line."""
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


def check_home(home: Path) -> Check:
    """Return whether files can be written under LIGHTLM_HOME, and who can read them."""
    from lightlm.store.commit import write_file
    from lightlm.store.scratch import scratch_folder

    origin = (
        "LIGHTLM_HOME" if os.environ.get("LIGHTLM_HOME", "").strip() else "the user's data folder"
    )

    try:
        with scratch_folder(home) as folder:
            started = time.monotonic()
            write_file(folder / "probe", b"written by lightlm doctor")
            seconds = time.monotonic() - started
    except LightLMError as error:
        return fail(
            "Home",
            str(error),
            f"give yourself rights on {home}, or set LIGHTLM_HOME to another folder",
        )

    message = f"{home} ({origin}), a durable write in {1000 * seconds:.0f} ms"
    if os.name == "posix" and home.stat().st_mode & 0o077:
        return warn(
            "Home", f"{message}; others on this machine can look into it", f"chmod 700 {home}"
        )

    return passed("Home", message)


def check_secrets(home: Path) -> Check:
    """Return whether passwords lie in files that others can read."""
    if os.name != "posix":
        return passed("Secrets", "modes of files are not checked on this system")

    folder = name_service_folder(home)
    kept = [
        path
        for path in (folder / "secrets.json", *sorted(folder.glob("*.ini")), Path(".env"))
        if path.is_file()
    ]

    open_ones = [path for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_ones:
        names = " ".join(str(path) for path in open_ones)
        return fail("Secrets", f"others can read {names}", f"chmod 600 {names}")

    return passed(
        "Secrets",
        f"{len(kept)} files with passwords, all for you alone" if kept else "none are kept",
    )


def check_store(home: Path) -> Check:
    """Return whether what is stored is as it was written."""
    from lightlm.store.inventory import DAMAGED, OTHER, list_items, verify_item

    try:
        items = [item for item in list_items(home) if item.kind != OTHER]
        is_read = sum(item.num_bytes for item in items) <= QUICK_BYTES
        problems = [
            problem for item in items for problem in verify_item(item, is_quick=not is_read)
        ]
    except LightLMError as error:
        return fail("Store", str(error), "look at the disk")

    set_aside = sum(item.kind == DAMAGED for item in items)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return fail(
            "Store", f"{problems[0]}{more}", "lightlm store verify names all; runs make stages anew"
        )

    if not items:
        return passed("Store", "nothing is stored yet")

    how = (
        "every file as it was written"
        if is_read
        else "manifests intact; `lightlm store verify` reads every byte"
    )

    if set_aside:
        return warn(
            "Store",
            f"{count(set_aside, 'damaged thing')} set aside before",
            "lightlm store prune removes them",
        )

    return passed("Store", f"{count(len(items), 'thing')}, {how}")


def check_service(home: Path) -> Check:
    """Return whether what `lightlm up` started still runs."""
    service = read_service(home)
    if service is None:
        return passed("Service", "not started (`lightlm up`); none is needed")

    missing = [name for name in PARTS if not service.runs(name)]
    if missing:
        return warn(
            "Service",
            f"of `lightlm up`, {' and '.join(missing)} no longer runs",
            "lightlm up starts it again",
        )

    return passed(
        "Service", f"runs: Prefect on {service.prefect_url}, MLflow on {service.mlflow_url}"
    )


def check_mlflow(home: Path) -> Check:
    """Return which MLflow is used, and whether it answers."""
    from lightlm.tracking.catalog import list_models
    from lightlm.tracking.registry import is_local, tracking_uri

    where = redact(tracking_uri(home))
    if is_local(home) and not (home / "mlflow.db").exists():
        return passed("MLflow", f"{where}, which the first run makes")

    started = time.monotonic()
    try:
        models = list_models()
    except LightLMError as error:
        fix = "see MLFLOW_TRACKING_URI; runs go on without it, and `lightlm sync` tells it later"
        return fail("MLflow", str(error), fix)

    seconds = time.monotonic() - started
    return passed("MLflow", f"{where} answers in {seconds:.1f} s; {count(len(models), 'model')}")


def check_versions(home: Path) -> Check:
    """Return whether the files of registered versions are those that were registered."""
    from lightlm.tracking.verification import find_damage, list_version_files

    try:
        versions = list_version_files(home)
        here = [files for files in versions if files.folder is not None]
        is_read = sum(files.num_bytes for files in here) <= QUICK_BYTES
        damaged = [
            found for files in here if (found := find_damage(home, files, is_quick=not is_read))
        ]
    except LightLMError as error:
        return warn(
            "Versions",
            f"not checked: {error}",
            "lightlm store verify checks them when MLflow answers",
        )

    if damaged:
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        return fail("Versions", f"{damaged[0].describe()}{more}", "lightlm store verify --repair")

    if not versions:
        return passed("Versions", "none is registered yet")
    if len(here) < len(versions):
        message = f"{len(versions) - len(here)} of {len(versions)} lie on a server"
        return passed("Versions", f"{message}; `lightlm store verify` fetches and checks them")

    how = (
        "as they were registered"
        if is_read
        else "with intact manifests; `lightlm store verify` reads every byte"
    )

    return passed("Versions", f"{len(versions)} {how}")


def check_prefect(home: Path) -> Check:
    """Return which Prefect API runs use, and whether it answers; that without a server is started
    for it.
    """
    embedded.apply_settings(home)
    started = time.monotonic()
    try:
        api = embedded.start_api()
        if api is None:
            where = redact(os.environ.get("PREFECT_API_URL") or "the profile's server")
            trouble = embedded.find_trouble()
        else:
            try:
                api.wait()
            finally:
                api.stop()
            where = "no server named; the API that each run starts for itself"
            trouble = None
    except LightLMError as error:
        where = "the API that each run starts for itself"
        trouble = str(error)

    seconds = time.monotonic() - started
    if trouble:
        fix = (
            "see PREFECT_API_URL and `prefect config view`; runs go on without it, and `lightlm "
            "sync` tells it later"
        )
        return fail("Prefect", f"{where}: {redact(trouble)}", fix)

    return passed("Prefect", f"{where} answers in {seconds:.1f} s")


def check_hub() -> tuple[Check, float | None]:
    """Return whether the Hub answers, and the seconds by which its clock is ahead; None where it
    does not say.
    """
    from huggingface_hub import constants

    fix = (
        "nothing, with text of your own or python-docs; else see HTTPS_PROXY, or HF_ENDPOINT "
        "for a mirror"
    )
    if constants.HF_HUB_OFFLINE:
        return warn("Hub", "HF_HUB_OFFLINE is set; only what is in its cache is found", fix), None

    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310  (what huggingface_hub asks, too)
    where = redact(constants.ENDPOINT)
    try:
        with urllib.request.urlopen(request, timeout=HUB_SECONDS) as answer:  # noqa: S310
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:  # it answers, if not to this
        date = error.headers.get("Date")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return warn("Hub", f"{where} does not answer ({first_line(error)})", fix), None

    try:
        offset = parsedate_to_datetime(date).timestamp() - time.time() if date else None
    except ValueError:
        offset = None

    return passed("Hub", f"{where} answers"), offset


def check_clock(offset_seconds: float | None) -> Check:
    """Return whether this machine's clock can be right; `offset_seconds` is by how much the Hub's
    is ahead.
    """
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    fix = "set the clock, or let it be set: timedatectl set-ntp true"
    if time.time() < EARLIEST:
        return fail("Clock", f"{now}: it was never set", fix)
    if offset_seconds is not None and abs(offset_seconds) > CLOCK_SECONDS:
        late = "behind" if offset_seconds > 0 else "ahead of"
        return warn("Clock", f"{now}, {abs(offset_seconds):,.0f} s {late} the Hub's", fix)
    return passed("Clock", now if offset_seconds is None else f"{now}, as the Hub's")


def find_version(name: str) -> str | None:
    """Return a package's installed version; None where it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def passed(name: str, message: str) -> Check:
    """Return a line that needs nothing."""
    return Check(name=name, status="pass", message=message)


def warn(name: str, message: str, fix: str) -> Check:
    """Return a remark."""
    return Check(name=name, status="warn", message=message, fix=fix)


def fail(name: str, message: str, fix: str) -> Check:
    """Return what keeps LightLM from working."""
    return Check(name=name, status="fail", message=message, fix=fix)
