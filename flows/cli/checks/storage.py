"""Checks of LIGHTLM_HOME: writing, secrets, what is stored, and registered versions."""

import os
import stat
import time
from pathlib import Path

from lightlm.errors import LightLMError
from lightlm.quantities import count
from lightlm.system import Check, fail, passed, warn
from lightlm_flows.service.servers import name_service_folder

QUICK_BYTES = 500_000_000
"""Bytes up to which every stored file is read, in a second or two; above, only manifests are."""


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
    """Return whether every stored file is as it was written."""
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
            f"{count(set_aside, 'damaged item')} set aside before",
            "lightlm store prune removes them",
        )

    return passed("Store", f"{count(len(items), 'item')}, {how}")


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
