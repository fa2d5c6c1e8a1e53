"""Checks of the servers that runs use: the service, MLflow, Prefect, the Hub, and the clock."""

import os
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from lightlm.errors import LightLMError
from lightlm.quantities import count
from lightlm.redaction import first_line, redact
from lightlm.system import Check, fail, passed, warn
from lightlm_flows.prefect_api import embedded
from lightlm_flows.service.record import PARTS, read_service

HUB_SECONDS = 5.0
"""Seconds that the Hub may take to answer."""

CLOCK_SECONDS = 60.0
"""Seconds that this machine's clock may differ from the Hub's before records get out of order."""

SYNCED_LATER = "runs continue without it, and `lightlm sync` sends it what it missed"

EARLIEST = 1_735_689_600.0
"""Seconds since 1970 at the beginning of 2025: an earlier clock was never set."""


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
        models = list_models(home)
    except LightLMError as error:
        fix = f"see MLFLOW_TRACKING_URI; {SYNCED_LATER}"
        return fail("MLflow", str(error), fix)

    seconds = time.monotonic() - started
    return passed("MLflow", f"{where} answers in {seconds:.1f} s; {count(len(models), 'model')}")


def check_prefect(home: Path) -> Check:
    """Return which Prefect API runs use, and whether it answers; starts the embedded one."""
    embedded.apply_settings(home)
    where = "no server named; the API that each run starts for itself"
    if embedded.names_server():
        where = redact(os.environ.get("PREFECT_API_URL") or "the profile's server")
    started = time.monotonic()
    with embedded.open_api() as trouble:
        seconds = time.monotonic() - started

    if trouble:
        fix = f"see PREFECT_API_URL and `prefect config view`; {SYNCED_LATER}"
        return fail("Prefect", f"{where}: {redact(trouble)}", fix)

    return passed("Prefect", f"{where} answers in {seconds:.1f} s")


def check_hub() -> tuple[Check, float | None]:
    """Return whether the Hub answers, and the seconds that its clock is ahead; None if unknown."""
    from huggingface_hub import constants

    fix = "only needed for Hub data sets: check HTTPS_PROXY, or HF_ENDPOINT for a mirror"
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
    """Return whether this machine's clock can be right; the Hub's is `offset_seconds` ahead."""
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    fix = "set the clock, or let it be set: timedatectl set-ntp true"
    if time.time() < EARLIEST:
        return fail("Clock", f"{now}: it was never set", fix)
    if offset_seconds is not None and abs(offset_seconds) > CLOCK_SECONDS:
        late = "behind" if offset_seconds > 0 else "ahead of"
        return warn("Clock", f"{now}, {abs(offset_seconds):,.0f} s {late} the Hub's", fix)
    return passed("Clock", now if offset_seconds is None else f"{now}, as the Hub's")
