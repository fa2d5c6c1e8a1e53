"""`lightlm doctor`: all checks in the order of a run; none ends another, and nothing is changed."""

from collections.abc import Iterator

from lightlm.errors import LightLMError
from lightlm.params import load_params
from lightlm.store.home import find_home
from lightlm.system import Check, check_system, fail
from lightlm_flows.cli.checks import installation, servers, storage


def examine() -> Iterator[Check]:
    """Yield the findings: the installation, the machine, LIGHTLM_HOME, the servers, the network."""
    yield installation.check_installation()
    yield from installation.check_packages()
    yield installation.check_exports()
    devices, found = installation.check_torch()
    yield found
    yield installation.check_compiler()
    yield installation.check_bytecode()

    try:
        home = find_home()
    except LightLMError as error:
        yield fail("LIGHTLM_HOME", str(error), "set LIGHTLM_HOME to a folder that you can write to")
    else:
        # Python and the devices, the memory and the disk: what every run begins with.
        yield from check_system(load_params(), home, devices).checks if devices else []
        yield storage.check_home(home)
        yield storage.check_secrets(home)
        yield storage.check_store(home)
        yield servers.check_service(home)
        yield servers.check_mlflow(home)
        yield storage.check_versions(home)
        yield servers.check_prefect(home)

    hub, offset_seconds = servers.check_hub()
    yield hub
    yield servers.check_clock(offset_seconds)
