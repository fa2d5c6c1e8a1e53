"""Plugin of Prefect's command line: `prefect deployment run train-flow` works without a slash.

Prefect wants FLOW/DEPLOYMENT and refuses a bare name before it asks the server. Loaded inside this
checkout only, by [tool.prefect.plugins] in pyproject.toml; elsewhere `train-flow/train-flow` always
works.
"""

from typing import TYPE_CHECKING, Any

from prefect.plugins import register_hook

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse

PREFECT_PLUGIN_API_REQUIRES = ">=0.1,<1"


@register_hook
def setup_environment(*, ctx: Any) -> None:
    """Let a bare name mean the flow's only deployment, or the deployment of that name."""
    from prefect.client.orchestration import PrefectClient

    original = getattr(PrefectClient, "read_deployment_by_name", None)
    if original is None or getattr(original, "takes_bare_names", False):
        return

    async def read_deployment_by_name(self: PrefectClient, name: str) -> "DeploymentResponse":
        if "/" not in name:
            from prefect.client.schemas.filters import FlowFilter, FlowFilterName

            found = await self.read_deployments(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[name]))
            )
            if len(found) == 1:
                return found[0]
            name = f"{name}/{name}"
        return await original(self, name)

    read_deployment_by_name.takes_bare_names = True  # pyright: ignore[reportFunctionMemberAccess]
    PrefectClient.read_deployment_by_name = read_deployment_by_name
