"""The commands that take a version elsewhere: export, push."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightlm.errors import InputError
from lightlm.store.home import find_home
from lightlm_flows.cli.options import AsJson, Model, Name, complete_from, open_chosen, print_json

if TYPE_CHECKING:
    from lightlm.model.quantization import Quantization
    from lightlm.tracking.registry import ModelVersion
    from lightlm.versions.export import Export, Options


MeasuredOn = Annotated[
    Path | None,
    typer.Option(
        help="A file or folder to measure smaller weights on; default: the version's held-out text."
    ),
]

OPEN_PAGE = (
    "to open it: `python -m http.server --bind 127.0.0.1 --directory {folder} 8080`, then "
    "http://127.0.0.1:8080; or put the folder on any server for static files"
)


def export(
    folder: Annotated[Path, typer.Argument(help="A new folder for the files.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            autocompletion=complete_from("hf", "gguf", "onnx", "web"),
            help="Format: hf (transformers), gguf (llama.cpp, Ollama), onnx (ONNX Runtime) or web "
            "(a page for the browser); default: hf.",
        ),
    ] = "hf",
    quantize: Annotated[
        str,
        typer.Option(
            autocompletion=complete_from("f32", "f16", "q8_0", "q5_0", "q4_0"),
            help="Type of the weights in gguf: f32, f16, q8_0, q5_0 or q4_0; what it costs is "
            "measured on held-out text; default: f32.",
        ),
    ] = "f32",
    text: MeasuredOn = None,
    libraries: Annotated[
        Path | None,
        typer.Option(
            help="For web: a folder with npm's archives, where npm cannot be reached; default: npm."
        ),
    ] = None,
    model: Model = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Write a version in another format, also as a web page.

    Adds a model card, and compares the logits of the written model with ours.
    """
    if to not in ("hf", "gguf", "onnx", "web"):
        raise InputError(f"--to is {to!r}; give hf, gguf, onnx or web")

    from lightlm.model.quantization import check_quantization

    quantization = check_quantization(quantize)
    if quantization != "f32" and to != "gguf":
        raise InputError(f"--quantize {quantization} is for --to gguf; {to} has fp32 weights")

    if text is not None and quantization == "f32":
        raise InputError("--text is what smaller weights are measured on; give --quantize, too")
    if libraries is not None and to != "web":
        raise InputError(f"--libraries is for --to web; {to} needs none")

    from lightlm.versions.export import check_folder, export_version

    check_folder(folder)
    home = find_home()
    version = open_chosen(home, model, name, is_quiet=as_json)
    options = replace(find_options(home, version, quantization, text), libraries=libraries)
    done = export_version(home, version, to, folder, options)
    if as_json:
        print_json(done.model_dump())
        return

    typer.echo(
        f"{done.model_name} version {done.model_version} as {done.format} in {done.folder} "
        f"({done.num_bytes / 1e6:.1f} MB)\n{describe_check(done)}"
        + (f"\n{done.note}" if done.note else "")
        + (f"\n{OPEN_PAGE.format(folder=shlex.quote(done.folder))}" if to == "web" else "")
    )


def find_options(
    home: Path, version: "ModelVersion", quantization: "Quantization", text: Path | None
) -> "Options":
    """Return the type of a GGUF file's weights, and the text that its cost is measured on."""
    from lightlm.versions.export import Options
    from lightlm.versions.held_out import find_held_out, read_sample

    if quantization == "f32":
        return Options()
    documents = find_held_out(home, version) if text is None else read_sample(text)
    return Options(quantization, documents)


def describe_check(done: "Export") -> str:
    """Return what an export was compared with, and how far it is off."""
    if done.rounded is not None:
        return f"checked with {done.checked_with}\n{done.rounded.format()}"
    same = "the same" if done.is_same_text else "another"
    return (
        f"checked with {done.checked_with} over {done.checked_tokens} tokens: logits within "
        f"{done.largest_difference:.1e} of ours, {same} likeliest token everywhere"
    )


def push(
    to: Annotated[
        str, typer.Option("--to", metavar="OWNER/NAME", help="The repository on the Hub.")
    ],
    license_name: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="The license that others get the model under, such as apache-2.0; default: the "
            "base's, else a terminal asks.",
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it; default: only you.")
    ] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Add a commit to a repository that exists; default: no."),
    ] = False,
    gguf: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete_from("f32", "f16", "q8_0", "q5_0", "q4_0"),
            help="Add a GGUF file of this type, for llama.cpp and Ollama; default: none.",
        ),
    ] = None,
    text: MeasuredOn = None,
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", help="The commit's message; default: name and version."),
    ] = None,
    model: Model = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Upload a version to the Hugging Face Hub, as private.

    Checks the written model as export does. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from lightlm.model.quantization import check_quantization
    from lightlm.versions.push import PushRequest, check_request, open_hub, push_version

    quantization = None if gguf is None else check_quantization(gguf)
    api = open_hub()
    home = find_home()
    version = open_chosen(home, model, name, is_quiet=as_json)
    if license_name is None and sys.stdin.isatty() and not as_json:
        license_name = ask_license(version)

    request = PushRequest(
        repository=to,
        license_name=check_request(to, license_name, version),
        is_private=not public,
        may_update=update,
        message=message,
        gguf=None if quantization is None else find_options(home, version, quantization, text),
    )

    done = push_version(home, version, request, api)
    if as_json:
        print_json(done.model_dump())
        return

    visible = "private" if done.is_private else "public"
    typer.echo(
        f"{done.model_name} version {done.model_version} is at {done.url} ({visible}, commit "
        f"{done.commit[:8]})" + (f"\n{done.note}" if done.note else "")
    )


def ask_license(version: "ModelVersion") -> str | None:
    """Return the license that a person types; None where the base's holds."""
    from lightlm.model.card import find_license

    if find_license(version.tags) is not None:
        return None
    return typer.prompt(
        "License that others get the model under (apache-2.0, mit, cc-by-4.0, other, unknown)"
    )
