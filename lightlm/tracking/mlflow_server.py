"""MLflow's server as LightLM runs it: with passwords, and only with allowed routes.

It replaces `mlflow server`, which serves everything and starts a second process. Its settings are
in the environment, set by flows/service/servers.py, so that no password is on a command line.
"""

import argparse
import logging
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from lightlm.child_process import refuse_relative_folders
from lightlm.tracking.mlflow_routes import AllowedCalls, list_origins

FIXED = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
    "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
    "MLFLOW_ENABLE_WORKSPACES": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Would change which addresses MLflow answers to, or have it execute more.
    "_MLFLOW_STATIC_PREFIX": "",
    "_MLFLOW_IN_JOB_EXECUTOR": "false",
}


def build_application(names: Sequence[str]) -> AllowedCalls:
    """Return MLflow's application with its users, behind the list; its databases are created or
    updated first.
    """
    os.environ.update(FIXED)
    os.environ["_MLFLOW_SGI_NAME"] = "uvicorn"
    os.environ["_MLFLOW_SERVER_BOOT_ID"] = uuid.uuid4().hex
    os.environ["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join(names)
    os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(sorted(list_origins(names)))
    # MLflow's own first import of Starlette's old middleware, and its word that users are
    # experimental.
    warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
    for name in ("mlflow.server.auth", "alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)

    from mlflow.server import constants

    store = os.environ["MLFLOW_BACKEND_STORE_URI"]
    root = "mlflow-artifacts:/"
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store,
        constants.REGISTRY_STORE_URI_ENV_VAR: store,
        constants.ARTIFACT_ROOT_ENV_VAR: root,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: os.environ["MLFLOW_ARTIFACTS_DESTINATION"],
    }

    from mlflow.server.auth import create_app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, store, root)
    application: Any = create_app()
    return AllowedCalls(application, names)


def serve(
    host: str, port: int, names: Sequence[str], when_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until a signal ends it; `when_ready` is called when the port answers."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            when_ready()

    refuse_relative_folders()
    application = build_application(names)
    config = uvicorn.Config(
        application,
        host=host.strip("[]"),
        port=port,
        lifespan="off",
        log_level="warning",
        access_log=False,
    )

    Server(config).run()


def main(arguments: Sequence[str]) -> None:
    """Serve as a process of its own."""
    parser = argparse.ArgumentParser(prog="lightlm.tracking.mlflow_server")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--allowed-hosts", required=True, help="HOST:PORT,HOST:PORT of the server's own pages"
    )
    given = parser.parse_args(arguments)
    serve(given.host, given.port, given.allowed_hosts.split(","))


if __name__ == "__main__":
    main(sys.argv[1:])
