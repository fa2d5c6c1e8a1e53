"""What attackers send to the two servers: no password, foreign names, foreign pages, and published
exploits.

Each is refused, or the launch profile has a hole. Sources: the texts of the CVEs that each probe
names.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

EVIL = "https://evil.example"
MLFLOW_API = "/api/2.0/mlflow"


@dataclass(frozen=True)
class Probe:
    """One request. PORT in a header stands for the server's own."""

    name: str
    server: str
    method: Literal["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    has_password: bool = False


def mlflow(name: str, method: Any, path: str, **more: Any) -> Probe:
    return Probe(name, "mlflow", method, path, **more)


def prefect(name: str, method: Any, path: str, **more: Any) -> Probe:
    return Probe(name, "prefect", method, path, **more)


SEARCH = f"{MLFLOW_API}/experiments/search?max_results=5"
CREATE = f"{MLFLOW_API}/experiments/create"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
DEFAULT = "Basic YWRtaW46cGFzc3dvcmQxMjM0"  # admin:password1234, MLflow's of old
GUESSED = "Basic bGlnaHRsbTpsaWdodGxt"  # lightlm:lightlm

MLFLOW_PROBES = [
    mlflow("no password: pages", "GET", "/"),
    mlflow("no password: experiments", "GET", SEARCH),
    mlflow(
        "no password: the pages' own API",
        "GET",
        "/ajax-api/2.0/mlflow/experiments/search?max_results=5",
    ),
    mlflow("no password: create", "POST", CREATE, body={"name": "x"}),
    mlflow("no password: models", "GET", f"{MLFLOW_API}/registered-models/search"),
    mlflow("no password: users", "GET", f"{MLFLOW_API}/users/list"),
    mlflow(
        "no password: a user of one's own",
        "POST",
        f"{MLFLOW_API}/users/create",
        body={"username": "eve", "password": "x" * 12},
    ),
    mlflow("no password: sign-up page", "GET", "/signup"),
    mlflow("no password: artifacts", "GET", FILES),
    mlflow("no password: upload", "PUT", f"{FILES}/x", body={}),
    mlflow("no password: graphql", "POST", "/graphql", body={"query": "{__typename}"}),
    mlflow("no password: gateway", "GET", "/api/2.0/endpoints/"),
    mlflow(
        "CVE-2026-0545: jobs without password",
        "POST",
        "/ajax-api/3.0/jobs",
        body={"job_name": "x", "params": {}},
    ),
    mlflow(
        "CVE-2026-0545: jobs' search without password", "POST", "/ajax-api/3.0/jobs/search", body={}
    ),
    mlflow("CVE-2026-2652: traces without password", "POST", "/v1/traces", body={}),
    mlflow("the default password", "GET", SEARCH, headers={"Authorization": DEFAULT}),
    mlflow("a guessed password", "GET", SEARCH, headers={"Authorization": GUESSED}),
    mlflow("a token for a password", "GET", SEARCH, headers={"Authorization": "Bearer x"}),
    mlflow(
        "rebinding: 10.*", "GET", SEARCH, headers={"Host": "10.attacker.example"}, has_password=True
    ),
    mlflow(
        "rebinding: 192.168.*",
        "GET",
        SEARCH,
        headers={"Host": "192.168.attacker.example:5000"},
        has_password=True,
    ),
    mlflow(
        "rebinding: 172.16.*",
        "GET",
        SEARCH,
        headers={"Host": "172.16.attacker.example:PORT"},
        has_password=True,
    ),
    mlflow(
        "rebinding: a name", "GET", SEARCH, headers={"Host": "evil.example:PORT"}, has_password=True
    ),
    mlflow(
        "rebinding: localhost as a prefix",
        "GET",
        SEARCH,
        headers={"Host": "localhost.evil.example:PORT"},
        has_password=True,
    ),
    mlflow(
        "rebinding: another port", "GET", SEARCH, headers={"Host": "127.0.0.1:1"}, has_password=True
    ),
    mlflow(
        "a page elsewhere creates",
        "POST",
        CREATE,
        headers={"Origin": EVIL},
        body={"name": "x"},
        has_password=True,
    ),
    mlflow(
        "a sandboxed page creates",
        "POST",
        CREATE,
        headers={"Origin": "null"},
        body={"name": "x"},
        has_password=True,
    ),
    mlflow(
        "a form elsewhere creates",
        "POST",
        CREATE,
        headers={"Origin": EVIL, "Content-Type": "text/plain"},
        body={"name": "x"},
        has_password=True,
    ),
    mlflow(
        "CVE-2024-1483: fragment in a location",
        "POST",
        CREATE,
        body={"name": "a", "artifact_location": "http:///#/../../../../../etc/"},
        has_password=True,
    ),
    mlflow(
        "CVE-2024-3848: query in a location",
        "POST",
        CREATE,
        body={"name": "b", "artifact_location": "http:///?/../../../../../etc/"},
        has_password=True,
    ),
    mlflow(
        "CVE-2024-1560: encoded dots",
        "DELETE",
        f"{FILES}/%252E%252E/%252E%252E/etc/passwd",
        has_password=True,
    ),
    mlflow("traversal: dots", "GET", f"{FILES}/../../../../../../etc/passwd", has_password=True),
    mlflow(
        "traversal: encoded dots",
        "GET",
        f"{FILES}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        has_password=True,
    ),
    mlflow(
        "traversal: encoded twice",
        "GET",
        f"{FILES}/%252e%252e%252f%252e%252e%252fetc%252fpasswd",
        has_password=True,
    ),
    mlflow("traversal: absolute", "GET", f"{FILES}//etc/passwd", has_password=True),
    mlflow(
        "traversal: static files",
        "GET",
        "/static-files/../../../../../../etc/passwd",
        has_password=True,
    ),
    mlflow(
        "CVE-2025-11201: source outside the store",
        "POST",
        f"{MLFLOW_API}/model-versions/create",
        body={"name": "none", "source": "file:///../../etc"},
        has_password=True,
    ),
    mlflow(
        "CVE-2026-2614: prompt tag",
        "POST",
        f"{MLFLOW_API}/model-versions/create",
        body={
            "name": "none",
            "source": "file:///etc",
            "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}],
        },
        has_password=True,
    ),
    mlflow(
        "jobs with password: execution is off",
        "POST",
        "/ajax-api/3.0/jobs",
        body={"job_name": "x", "params": {}},
        has_password=True,
    ),
]

PREFECT_PROBES = [
    prefect("no password: version", "GET", "/api/admin/version"),
    prefect("no password: settings", "GET", "/api/admin/settings"),
    prefect("no password: deployments", "POST", "/api/deployments/filter", body={}),
    prefect("no password: runs", "POST", "/api/flow_runs/filter", body={}),
    prefect("no password: a run of one's own", "POST", "/api/flow_runs/", body={}),
    prefect("no password: blocks", "POST", "/api/block_documents/filter", body={}),
    prefect("no password: variables", "POST", "/api/variables/filter", body={}),
    prefect("no password: a token against CSRF", "GET", "/api/csrf-token?client=x"),
    prefect("no password: documentation of the API", "GET", "/api/docs"),
    prefect(
        "no password: clear the database",
        "POST",
        "/api/admin/database/clear",
        body={"confirm": True},
    ),
    prefect("a guessed password", "GET", "/api/admin/version", headers={"Authorization": GUESSED}),
    prefect(
        "a token for a password", "GET", "/api/admin/version", headers={"Authorization": "Bearer x"}
    ),
    prefect("CVE-2026-3514: path that ends in health", "GET", "/api/variables/name/system-health"),
    prefect("CVE-2026-7722: path that ends in ready", "GET", "/api/variables/name/ready"),
    prefect("CVE-2026-7722: health in the query", "GET", "/api/admin/version?x=/health"),
    prefect("health by way of dots", "GET", "/api/health/../admin/version"),
    prefect(
        "health in the host", "GET", "/api/admin/version", headers={"Host": "127.0.0.1:PORT/health"}
    ),
    prefect(
        "rebinding: a name", "GET", "/api/admin/version", headers={"Host": "evil.example:PORT"}
    ),
    prefect(
        "rebinding: 10.*",
        "POST",
        "/api/flow_runs/filter",
        headers={"Host": "10.attacker.example"},
        body={},
    ),
    prefect("CSRF: no token", "POST", "/api/flows/", body={"name": "x"}, has_password=True),
    prefect(
        "CSRF: a made-up token",
        "POST",
        "/api/flows/",
        headers={"Prefect-Csrf-Token": "x", "Prefect-Csrf-Client": "y"},
        body={"name": "x"},
        has_password=True,
    ),
    prefect(
        "CSRF: a form elsewhere",
        "POST",
        "/api/flows/",
        headers={"Origin": EVIL, "Content-Type": "text/plain"},
        body={"name": "x"},
        has_password=True,
    ),
    prefect("CSRF: delete", "DELETE", "/api/work_pools/lightlm", has_password=True),
    prefect(
        "CORS: a page elsewhere asks first",
        "OPTIONS",
        "/api/flows/filter",
        headers={"Origin": EVIL, "Access-Control-Request-Method": "POST"},
    ),
    prefect(
        "CORS: a sandboxed page asks first",
        "OPTIONS",
        "/api/flows/filter",
        headers={"Origin": "null", "Access-Control-Request-Method": "POST"},
    ),
]
