"""The command that takes a version elsewhere: export."""

from pathlib import Path
from typing import Annotated

import typer

from lightlm.errors import InputError
from lightlm_flows.cli.options import AsJson, Model, Name, complete_from, open_chosen, print_json


def export(
    folder: Annotated[Path, typer.Argument(help="A new folder for the files.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            autocompletion=complete_from("hf", "gguf", "onnx"),
            help="Format: hf (transformers), gguf (llama.cpp, Ollama) or onnx.",
        ),
    ] = "hf",
    model: Model = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Write a version as Hugging Face folder, GGUF or ONNX.

    Adds a model card, and compares the logits of the written model with ours.
    """
    if to not in ("hf", "gguf", "onnx"):
        raise InputError(f"--to is {to!r}; give hf, gguf or onnx")

    from lightlm.versions.export import check_folder, export_version

    check_folder(folder)
    done = export_version(open_chosen(model, name, is_quiet=as_json), to, folder)
    if as_json:
        print_json(done.model_dump())
        return

    same = "the same" if done.is_same_text else "another"
    typer.echo(
        f"{done.model_name} version {done.model_version} as {done.format} in {done.folder} "
        f"({done.num_bytes / 1e6:.1f} MB)\nchecked with {done.checked_with} over "
        f"{done.checked_tokens} tokens: logits "
        f"within {done.largest_difference:.1e} of ours, {same} likeliest token everywhere"
    )
