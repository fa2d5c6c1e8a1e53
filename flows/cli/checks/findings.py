"""The findings of a check: passed, a warning or a failure with its fix, and their words."""

import importlib.metadata

from lightlm.system import Check


def find_version(name: str) -> str | None:
    """Return a package's installed version; None where it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def passed(name: str, message: str) -> Check:
    """Return a finding that needs nothing."""
    return Check(name=name, status="pass", message=message)


def warn(name: str, message: str, fix: str) -> Check:
    """Return a finding that costs something, but keeps nothing from working."""
    return Check(name=name, status="warn", message=message, fix=fix)


def fail(name: str, message: str, fix: str) -> Check:
    """Return a finding that keeps LightLM from working."""
    return Check(name=name, status="fail", message=message, fix=fix)
