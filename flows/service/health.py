"""The health of a part of the service: a real call with its password.

`python -P -m lightlm_flows.service.health mlflow mlflow:5000` ends with 0 if it does. MLflow's own
/health answers 200 even where every call is refused. Imports nothing heavy: containers ask every
few seconds.
"""

import base64
import http.client
import os
import sys
from collections.abc import Mapping

HOST = "127.0.0.1"
WAIT_SECONDS = 10

PROBES = {
    "prefect": "/api/admin/version",
    "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1",
    # Prefect's worker: 503 when it has not asked for work for a while.
    "worker": "/health",
    "serve": "/health",
}


def answers(port: int, path: str, password: str = "", name: str = "") -> bool:
    """Return whether a server on loopback answers 200; `name` is its HOST:PORT."""
    connection = http.client.HTTPConnection(HOST, port, timeout=WAIT_SECONDS)
    headers = {"Host": name or f"{HOST}:{port}"}
    if password:
        headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def find_password(part: str, environment: Mapping[str, str]) -> str:
    """Return USER:PASSWORD of a server, as its own environment has it."""
    if part == "mlflow":
        return f"lightlm:{environment['MLFLOW_AUTH_ADMIN_PASSWORD']}"
    return environment.get("PREFECT_SERVER_API_AUTH_STRING", "")


if __name__ == "__main__":
    part, name = sys.argv[1:]
    port = int(name.rpartition(":")[2])
    sys.exit(not answers(port, PROBES[part], find_password(part, os.environ), name))
