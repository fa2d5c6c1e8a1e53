"""The command that opens the menus: setup; `train` without options on a terminal is the same."""

import sys

from lightlm.params import name_texts
from lightlm.store.home import find_home
from lightlm_flows.cli.options import (
    Assignments,
    Dataset,
    DatasetConfig,
    Hours,
    TextColumn,
    collect_overrides,
)


def setup(
    hours: Hours = None,
    dataset: Dataset = None,
    dataset_config: DatasetConfig = None,
    text_column: TextColumn = None,
    assignments: Assignments = None,
) -> None:
    """Choose a training in menus, and start it.

    `train` without options on a terminal does the same.
    """
    first, others = name_texts(dataset)
    choices = others | collect_overrides(assignments, dataset_config, text_column, None)
    if first is not None:
        choices = {
            "dataset.source": first,
            "dataset.config": None,
            "dataset.revision": None,
        } | choices

    if hours is not None:
        choices["budget.hours"] = hours

    from lightlm_flows.cli.setup_session import run_setup

    run_setup(find_home(), choices)


def is_asked_for() -> bool:
    """Return whether `lightlm train` opens the menus: no options, and a terminal.

    Only then: a script's `lightlm train` must neither wait for an answer nor eat the script's own
    input.
    """
    return sys.argv[2:] == [] and sys.stdin.isatty() and sys.stderr.isatty()
