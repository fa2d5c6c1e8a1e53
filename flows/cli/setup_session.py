"""The session of `lightlm setup`: menus to check the machine, choose a training and start it.

Each screen changes dotted overrides over params/base.yaml, as --set does. The budget's clock starts
with "Start training"; time in menus is not charged.
"""

import json
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightlm.budget.shapes import DEFAULT_SHAPE
from lightlm.console.menus import Dialogue
from lightlm.console.next_commands import name_command
from lightlm.data.origin import format_origin
from lightlm.errors import Interrupted, LightLMError
from lightlm.params import Overrides, Params, is_default_dataset, load_params
from lightlm.quantities import count, format_seconds
from lightlm.runs.input_checks import check_hours, check_sources
from lightlm.runs.naming import format_model_name
from lightlm_flows.cli.approval import FIXED, fix_plan, free_plan, take_text
from lightlm_flows.cli.machine import Bench
from lightlm_flows.cli.saved_configuration import (
    CONFIGURATION,
    find_configuration,
    list_differences,
)
from lightlm_flows.cli.saved_configuration import load_configuration as load_file
from lightlm_flows.cli.saved_configuration import save_configuration as save_file

TITLE = "LightLM - Training Setup"
MAIN = ("Start training", "Manage dataset/configuration", "Exit")
MANAGEMENT = (
    "Change dataset",
    "Load existing configuration",
    "Create new configuration",
    "Save current configuration",
    "Optimize for training time",
    "Continue with current settings",
    "Exit",
)


SHAPE = frozenset(f"model.{name}" for name in DEFAULT_SHAPE)
"""Dotted names of the shape, which optimizing is there to choose."""


class Setup:
    """One session. `choices`: valid dotted overrides; `approved`: those of an approved plan."""

    def __init__(
        self, home: Path, dialogue: Dialogue, bench: Bench, choices: Mapping[str, Any]
    ) -> None:
        self.home = home
        self.dialogue = dialogue
        self.bench = bench
        self.choices: Overrides = dict(choices)
        self.given = frozenset(name for name in choices if name not in SHAPE)
        self.approved: Overrides = {}

    @property
    def params(self) -> Params:
        """The params with the choices so far."""
        return load_params(overrides=self.choices)

    def run(self) -> Params | None:
        """Return the training to start; None if the user leaves."""
        self.show_system()
        while True:
            self.show_choices()
            picked = self.dialogue.choose("Training Setup", MAIN)
            if picked == 1:
                if self._can_start():
                    return self.params
            elif picked in (None, 3) or not self.manage():
                return None

    def _can_start(self) -> bool:
        """Return whether the chosen text is there; print the problem if not."""
        try:
            check_sources(self.home, self.params)
        except LightLMError as error:
            self.dialogue.warn(str(error))
            return False
        return True

    def show_system(self) -> None:
        """Print the check of this machine."""
        from lightlm.console.tables import render_checks

        self.dialogue.log(TITLE, "bold")
        self.dialogue.log("Checking the system ...", "dim")
        self.dialogue.show(
            render_checks(self.bench.check(self.params).checks, self.dialogue.console)
        )

    def show_choices(self) -> None:
        """Print what would be trained now."""
        self.dialogue.log()
        dataset = self.params.dataset
        otherwise = " from the Hub; where that is out of reach, the built-in python-docs"
        phrase = format_origin(dataset.model_dump()) + (
            otherwise if is_default_dataset(dataset) else ""
        )
        self.dialogue.log(f"Data set: {phrase}", "dim")
        self.dialogue.log(format_model_name(self.params), "dim")
        self.dialogue.log(
            f"Model:    {format_shape(self.params)}, in {format_hours(self.params.budget.hours)}",
            "dim",
        )

    def manage(self) -> bool:
        """Show the management menu until it is left; return False where the whole session is."""
        actions = {
            1: self.change_dataset,
            2: self.load_configuration,
            3: self.create_configuration,
            4: self.save_configuration,
            5: self.optimize,
        }

        while True:
            self.dialogue.log()
            picked = self.dialogue.choose("Manage dataset/configuration", MANAGEMENT)
            if picked in (None, 6):
                return True
            if picked == 7:
                return False
            try:
                actions[picked]()
            except Interrupted as error:
                self.dialogue.warn(f"cancelled: {error}")
            except KeyboardInterrupt:
                self.dialogue.warn("cancelled")
            except LightLMError as error:
                self.dialogue.warn(str(error))
            if picked in (1, 2, 3):
                self.show_choices()

    def change_dataset(self) -> None:
        """Ask for another data set: a path, a Hub id, python-docs."""
        current = self.params.dataset.source
        self.dialogue.log(
            "A file or folder (txt, md, csv, pdf, ...), a Hub id, or python-docs.", "dim"
        )
        chosen = self.dialogue.ask("Data set", self._read_dataset, default=current, is_path=True)
        if chosen is None or chosen == current:
            return

        found = {
            "dataset.source": chosen,
            "dataset.config": None,
            "dataset.revision": None,
            "dataset.others": [],
        }
        if is_on_hub(chosen):
            config = self.dialogue.ask("Its configuration on the Hub, - for none", str, default="-")
            if config is None:
                return
            found["dataset.config"] = None if config == "-" else config

        self._take(free_plan(self.choices, self.approved) | found)
        if self.approved:
            self.approved = {}
            self.dialogue.log(
                "What was optimized for the other text is left to the planner again.", "dim"
            )

        self.show_text(chosen)

    def show_text(self, source: str) -> None:
        """Print what a data set holds and what of it is left out; of a large one, how to see it."""
        from lightlm.console.look import render_summary
        from lightlm.data.look import glance_at

        found = glance_at(self.params.dataset)
        for line, style in [] if found is None else render_summary(found):
            self.dialogue.log(line, style)
        self.dialogue.log(f"`{name_command()} look {shlex.quote(source)}` shows more of it.", "dim")

    def _take(self, choices: Mapping[str, Any]) -> None:
        """Take choices that are valid together.

        Raises:
            ParameterError: they are not; the earlier ones stay.
        """
        load_params(overrides=choices)
        self.choices = dict(choices)

    def load_configuration(self) -> None:
        """Take a saved configuration, last_config.json or another file."""
        loaded = self.dialogue.ask(
            "Configuration file",
            lambda typed: load_file(Path(typed).expanduser()),
            default=str(find_configuration(self.home)),
            is_path=True,
        )

        if loaded is None:
            return

        for notice in loaded.notices:
            self.dialogue.warn(notice)
        self._take(loaded.choices)
        self.dialogue.log("Configuration loaded.", "green")

    def create_configuration(self) -> None:
        """Ask for every part of the shape."""
        from lightlm_flows.cli.shape_editor import Editor

        made = Editor(self.dialogue, self.choices, self.bench.measure).edit()
        if made is not None:
            self._take(made)

    def save_configuration(self) -> None:
        """Write last_config.json."""
        path = self.home / CONFIGURATION
        save_file(path, self.choices, format_shape(self.params))
        self.dialogue.log(f"Configuration saved to {path}", "green")

    def optimize(self) -> None:
        """Ask for the hours, show machine and plan, and apply the plan if the user wants it."""
        hours = self.dialogue.ask(
            "Enter desired training time in hours (e.g., 24.0): ", self._read_hours
        )
        if hours is None:
            return

        # What an earlier plan or configuration fixed does not bind this one; what the command line
        # fixed does.
        kept = {
            name: value
            for name, value in self.choices.items()
            if name not in FIXED or name in self.given
        }
        wanted = kept | {"budget.hours": hours, "budget.planner": "measured"}
        from lightlm.console.hardware import render_hardware, render_optimizations
        from lightlm.runs.planning import make_plan

        self.bench.stop()
        planned = make_plan(self.home, load_params(overrides=wanted), None, is_quiet=False)
        plan = planned.plan
        report = self.bench.report
        if planned.notice:
            self.dialogue.warn(planned.notice)

        self.dialogue.show(render_hardware(report, planned.probe.machine, plan))
        data = f"{planned.text_name}: {planned.subset.removeprefix('Using ')}"
        self.dialogue.show(render_optimizations(plan, data, planned.probe.lead_seconds))

        if self.dialogue.confirm("Apply these optimizations? (y/n): "):
            approved = fix_plan(plan)
            wanted = take_text(wanted, planned.text_name, is_replaced=planned.notice is not None)
            self._take(wanted | approved)
            self.approved = approved
            self.dialogue.log("Optimizations applied.", "green")
            self.show_choices()
        else:
            self.dialogue.log("Nothing was changed.")

    def _read_hours(self, typed: str) -> float:
        params = load_params(overrides={"budget.hours": typed})
        check_hours(self.home, params)
        return params.budget.hours

    def _read_dataset(self, typed: str) -> str:
        from lightlm.data.subset import check_dataset

        # its configuration is asked for first; the Hub itself when training starts
        if is_on_hub(typed):
            return typed
        other = {"dataset.source": typed, "dataset.config": None, "dataset.revision": None}
        params = load_params(overrides=self.choices | other)
        check_dataset(params.dataset, params.model.context_length)
        return typed


def run_setup(home: Path, choices: Mapping[str, Any]) -> None:
    """Hold a session, and train what it ends with.

    Raises:
        LightLMError: as training does; a stopped run's message names the command to resume it.
    """
    load_params(overrides=choices)
    dialogue = Dialogue()
    with Bench(home) as bench:
        setup = Setup(home, dialogue, bench, choices)
        try:
            params = setup.run()
        except KeyboardInterrupt:
            params = None

    if params is None:
        dialogue.log("Nothing is trained. `lightlm setup` comes back here.")
        return

    train_choices(home, dialogue, params)


def train_choices(home: Path, dialogue: Dialogue, params: Params) -> None:
    """Train with a session's params, within the hours from now on, and show what it reached."""
    from lightlm.runs.launch import Launch
    from lightlm.runs.summary import show_summary
    from lightlm_flows.cli.launching import launch_training
    from lightlm_flows.cli.signals import end_in_order

    overrides = dict(list_differences(params))
    command = format_command(overrides)
    dialogue.log()
    dialogue.log(f"The same without menus: {command}", "dim")
    check_sources(home, params)

    launch = Launch(time.monotonic())
    with end_in_order(launch):
        try:
            summary = launch_training(home, params, None, "base", overrides, launch)
        except Interrupted:
            dialogue.log()
            dialogue.log(f"To resume: {command}")
            raise

    show_summary(summary)
    used = f"{format_seconds(summary.elapsed_seconds)} of {format_seconds(summary.budget_seconds)}"
    version = (
        f"version {summary.model_version}"
        if summary.model_version
        else "(`lightlm sync` registers it)"
    )

    sys.stdout.write(
        f"Training completed: {summary.model_name} {version}, {summary.bits_per_byte:.3f} bits "
        f"per byte, {used}\n"
    )


def is_on_hub(source: str) -> bool:
    """Return whether a data set's name is one of the Hub's: OWNER/NAME, and no path."""
    return (
        source.count("/") == 1
        and not source.startswith((".", "~", "/"))
        and not Path(source).exists()
    )


def format_hours(hours: float) -> str:
    """Return "0.02 h (72 s)"."""
    return f"{hours:g} h ({format_seconds(hours * 3600)})"


def format_shape(params: Params) -> str:
    """Return the shape as far as it is fixed."""
    model = params.model
    if model.num_layers is None or model.model_dim is None:
        return "chosen by the planner"

    phrase = f"{count(model.num_layers, 'layer')} x {model.model_dim} dims"
    phrase += f", {count(model.num_heads, 'head')}" if model.num_heads else ""
    phrase += f", context {model.context_length:,}" if model.context_length else ""
    phrase += f", vocabulary {params.tokenizer.vocab_size:,}" if params.tokenizer.vocab_size else ""
    batch = params.training.batch_tokens
    phrase += f", {batch:,} tokens per step" if batch else ""
    phrase += ", flash attention" if model.flash_attention else ""
    return phrase + (f", {model.num_experts} experts" if model.mixture_of_experts else "")


def format_command(overrides: Mapping[str, Any]) -> str:
    """Return the `lightlm train` line that trains the same, and goes on with the same run."""
    words = [*shlex.split(name_command()), "train"]
    for name, value in overrides.items():
        if name == "budget.hours":
            words += ["--hours", f"{value:g}" if float(f"{value:g}") == value else repr(value)]
        else:
            said = (
                "null"
                if value is None
                else str(value).lower()
                if isinstance(value, bool)
                else json.dumps(value)
                if isinstance(value, tuple)
                else str(value)
            )
            words += ["--set", f"{name}={said}"]

    return shlex.join(words)
