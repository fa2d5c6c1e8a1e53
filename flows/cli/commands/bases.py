"""The command that lists what training can start from: bases."""

import sys

import typer

from lightlm_flows.cli.options import AsJson, print_json


def bases(as_json: AsJson = False) -> None:
    """List the models that training can start from.

    Those of this machine first: the store, the Hub's cache, and the usual folders of Ollama,
    llama.cpp and LM Studio; then registered models, and good small ones of the Hub.
    """
    from lightlm.bases.catalog import list_bases
    from lightlm.store.home import find_home
    from lightlm.tracking.catalog import list_models

    home = find_home()
    listed = list_bases(home)
    models = list_models(home)
    if as_json:
        print_json(
            {
                "bases": [one.model_dump() for one in listed],
                "registered": [f"models:/{one.name}/{one.shown.version}" for one in models],
            }
        )
        return

    from lightlm.console.bases import render_bases
    from lightlm.console.terminal import open_console

    console = open_console(sys.stdout)
    registered = [(one.name, one.shown.tags.get("num_parameters", "")) for one in models]
    console.print(render_bases(listed, registered))
    typer.echo("start from one with `lightlm train --start SOURCE`")
