"""The work pools of the deployments, with typed job variables: process, Docker, Kubernetes.

The flows are the same on each. A pool's own template (volumes of Kubernetes, GPUs) is Prefect's:
docs/operations.md.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

Image = Annotated[str, Field(pattern=r"^[a-z0-9][a-zA-Z0-9._/:@-]{0,254}$")]
IMAGE = "lightlm:cpu"
"""As docker-compose.yml builds it."""


class PoolVariables(BaseModel, frozen=True, extra="forbid"):
    """Job variables of a pool, by the names of its template; empty ones are left out."""

    pool_type: ClassVar[str]

    env: dict[str, str] = Field(default_factory=dict)

    def merge(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return a deployment's own job variables with these over them."""
        given = {
            name: value
            for name, value in self.model_dump(exclude={"env"}).items()
            if value not in (None, [], {})
        }
        return {**own, **given, "env": {**own.get("env", {}), **self.env}}


class ProcessVariables(PoolVariables, frozen=True):
    """A process on the worker's machine, or on several that share LIGHTLM_HOME."""

    pool_type: ClassVar[str] = "process"


class DockerVariables(PoolVariables, frozen=True):
    """A container a run, on the machine of the worker."""

    pool_type: ClassVar[str] = "docker"

    image: Image = IMAGE
    image_pull_policy: Annotated[str, Field(pattern="^(Always|IfNotPresent|Never)$")] = (
        "IfNotPresent"
    )
    auto_remove: bool = True
    networks: list[str] = Field(default_factory=list)
    volumes: list[str] = Field(default_factory=lambda: ["lightlm_data:/data"])
    mem_limit: str | None = None


class KubernetesVariables(PoolVariables, frozen=True):
    """A job a run, in a cluster."""

    pool_type: ClassVar[str] = "kubernetes"

    image: Image = IMAGE
    namespace: str = "default"
    image_pull_policy: Annotated[str, Field(pattern="^(Always|IfNotPresent|Never)$")] = (
        "IfNotPresent"
    )
    service_account_name: str | None = None
    finished_job_ttl: Annotated[int, Field(ge=0)] = 3600


POOL_TYPES: dict[str, type[PoolVariables]] = {
    kind.pool_type: kind for kind in (ProcessVariables, DockerVariables, KubernetesVariables)
}
