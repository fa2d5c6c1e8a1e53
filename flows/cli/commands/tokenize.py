"""The command that tokenizes a text larger than one machine, for many runs: tokenize."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightlm.errors import ParameterError
from lightlm.params import PATTERN_WORDS, URL, is_folder_url, load_params
from lightlm_flows.cli.launching import log_aside
from lightlm_flows.cli.options import (
    AsJson,
    Assignments,
    DatasetConfig,
    Preset,
    TextColumn,
    collect_overrides,
    print_json,
)

if TYPE_CHECKING:
    from lightlm.data.building.stages import Machine


def tokenize(
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            "-d",
            metavar="TEXT",
            help="A file, a folder, a pattern, a Hub id, or the URL of a folder, such as "
            "s3://bucket/folder.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Where the corpus goes: a folder, or a URL as s3://bucket/corpus."
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="NUMBER", help="Processes here; default: one per core."),
    ] = None,
    machine: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Which of several machines this is, as 1/4: each runs the same command; default: "
            "1/1.",
        ),
    ] = "1/1",
    dataset_config: DatasetConfig = None,
    text_column: TextColumn = None,
    preset: Preset = "base",
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Tokenize a large text once, for many runs.

    `train --dataset URL` then reads what it needs of it. The same command goes on where an earlier
    one ended.
    """
    from dataclasses import asdict

    from lightlm.data.building.job import plan_job
    from lightlm.data.building.stages import build_corpus, check_datatrove
    from lightlm.system import count_cores

    check_datatrove()
    place = read_machine(machine)
    overrides = collect_overrides(assignments, dataset_config, text_column, None)
    params = load_params(preset, overrides, dataset=dataset)
    url = name_url(out)

    job = plan_job(params, url)
    log_aside(f"{job.source}: {job.about_bytes / 1e9:,.3f} GB in {len(job.tasks):,} tasks")
    corpus = build_corpus(job, workers or count_cores(), place, log_aside)
    if as_json:
        print_json(asdict(corpus))
        return
    typer.echo(
        f"{corpus.num_tokens:,} tokens of {corpus.num_bytes / 1e9:,.3f} GB; train on them: "
        f"lightlm train --dataset {corpus.url}"
    )


def name_url(out: str) -> str:
    """Return the URL of where a person wants the corpus.

    Raises:
        ParameterError: it is the URL of no folder, or may hold a key.
    """
    url = out.rstrip("/") if "://" in out else Path(out).expanduser().absolute().as_uri()
    if not is_folder_url(url):
        raise ParameterError(f"--out: {PATTERN_WORDS[URL]}; credentials belong in the environment")
    return url


def read_machine(text: str) -> "Machine":
    """Return which of several machines `text` names, from 0 on, and how many there are.

    Raises:
        ParameterError: it names none.
    """
    from lightlm.data.building.stages import Machine

    number, _, count = text.partition("/")
    is_number = number.isdecimal() and count.isdecimal()
    if not is_number or not 1 <= int(number) <= int(count):
        raise ParameterError(f"--machine is {text!r}; give 1/4 to 4/4 on four machines")
    return Machine(int(number) - 1, int(count))
