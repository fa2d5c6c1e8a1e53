"""Make the empty databases of Prefect and MLflow at set-up: a first run would wait 8 s for them.

`python -P -m lightlm_flows.prefect_api.templates`, called by bin/bootstrap. It also compiles and
loads what a run starts. A failure only leaves the work to the first run.
"""

import os
import tempfile
from pathlib import Path

from lightlm.tracking.registry import create_database
from lightlm_flows.prefect_api.embedded import apply_settings, start_api


def make_templates(home: Path) -> None:
    """Make both databases in a home that is not kept; where they are kept says
    lightlm/store/template.py.

    Raises:
        LightLMError: Prefect's API did not start.
    """
    apply_settings(home)
    api = start_api()
    create_database(home)
    if api is not None:
        api.wait()
        api.stop()


if __name__ == "__main__":
    # a server that a person named has tables already, and none of its own would be made
    for name in [name for name in os.environ if name.startswith(("PREFECT", "MLFLOW"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="lightlm-") as folder:
        make_templates(Path(folder))
