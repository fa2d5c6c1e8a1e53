"""generate-flow: text from a registered model version, never from a path."""

from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from lightlm.data.origin import safe_word
from lightlm.params import Name
from lightlm.store.home import find_home
from lightlm.versions.text import GeneratedText, Sampling, check_request
from lightlm_flows.prefect_api.artifacts import FlowPage
from lightlm_flows.tasks import find_version, write_text

Prompt = Annotated[str, Field(min_length=1)]


def name_flow_run() -> str:
    """Return "generate-notes-3", as far as the parameters name the version."""
    values = flow_run.parameters
    wanted = [values.get("name"), (values.get("model") or "").removeprefix("models:/")]
    return "-".join(["generate", *(safe_word(word) for word in wanted if word)])


@flow(name="generate-flow", flow_run_name=name_flow_run, persist_result=False)
def generate_flow(
    prompt: Prompt,
    model: str | None = None,
    sampling: Sampling | None = None,
    name: Name | None = None,
) -> GeneratedText:
    """Continue `prompt` with a registered model version.

    Args:
        prompt: The text to continue.
        model: The version, as models:/NAME@ALIAS or models:/NAME/VERSION; empty: the champion.
        sampling: Sampling values, as {"temperature": 0.7}; the same `seed` writes the same text.
        name: The registered model's name; empty: the newest one.
    """
    values = check_request(prompt, sampling or {})
    home = find_home()
    version = find_version(home, model, name)
    page = FlowPage(flow_run.id)
    page.rename(f"generate-{version.name}-{version.version}")
    page.close()
    return write_text(home, version, prompt, values)
