"""The manual configuration: questions about a model's shape, with bounds and costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightlm.budget.memory import usable_memory
from lightlm.budget.probe import MachineRate, Probe
from lightlm.budget.shapes import DEFAULT_SHAPE, build_shape, choose_heads
from lightlm.console.menus import NO, YES, Dialogue
from lightlm.errors import LightLMError, ParameterError
from lightlm.model.accounting import count_parameters, training_memory_bytes
from lightlm.model.config import ModelConfig
from lightlm.params import Overrides, load_params
from lightlm.quantities import format_bytes, format_count, format_seconds

ASSUMED_VOCAB = 4096
"""Entries; until the tokenizer is trained, what small budgets get."""

TOKENS_PER_PARAMETER = 20
"""Tokens per parameter of compute-optimal training (Hoffmann et al., arXiv 2203.15556)."""


@dataclass(frozen=True)
class Question:
    """One value of the configuration: dotted name, question, bounds in words, meaning."""

    name: str
    text: str
    bounds: str
    meaning: str
    is_switch: bool = False


QUESTIONS = (
    Question("model.num_layers", "Number of layers", "1 to 512", "Blocks of attention and "
                                                                 "feed-forward, one after "
             "the other. More layers learn more from much text, and cost time in proportion."),
    Question("model.model_dim", "Model dimensions", "8 to 65536, a multiple of 64 is "
                                                    "fastest", "Numbers that stand "
             "for a token inside the model. Time and memory grow with their square."),
    Question("model.num_heads", "Attention heads", "1 to 1024, a divisor of the "
                                                   "dimensions", "Places that a layer "
             "looks at in one go. 64 dimensions per head are fastest on most machines."),
    Question("model.context_length", "Context length", "8 to 1048576 "
                                                       "tokens", "Tokens that the model sees at "
                                                                 "once. "
             "Attention's memory grows with it; a short budget learns more from 128 than from "
             "1024."),
    Question("model.flash_attention", "Flash attention", "on or off", "Demands the flash kernel "
                                                                      "(NVIDIA GPUs from "
             "compute capability 8.0). Off takes the fastest kernel that this machine "
             "has.", is_switch=True),
    Question("model.mixture_of_experts", "Mixture of experts", "on or off",
             "Several feed-forwards a layer, of which "
             "each token takes two: more parameters at the same speed. In a small budget off "
             "learns more.",
             is_switch=True),
    Question("budget.hours", "Training time in "
                             "hours", "more than 0, to 8760", "Wall clock of the whole run, from "
             "the start to the registered model."),
)  # fmt: skip

MANUAL: Overrides = {
    **{f"model.{name}": value for name, value in DEFAULT_SHAPE.items()},
    "model.flash_attention": False,
    "model.mixture_of_experts": False,
}
"""Shape of an unchanged configuration: 12 layers, 768 dims, 12 heads, context 1,024."""


Measure = Callable[[], MachineRate | None]
"""Gives the machine's rate; None where it could not be measured."""


class Editor:
    """Asks for each value in turn; `measure` returns the machine's rate, None if unknown."""

    def __init__(self, dialogue: Dialogue, choices: Mapping[str, Any], measure: Measure) -> None:
        self.dialogue = dialogue
        self.others = {
            name: value for name, value in choices.items() if not name.startswith("model.")
        }
        self.values = MANUAL | {"budget.hours": load_params(overrides=self.others).budget.hours}
        self.measure = measure

    def edit(self) -> Overrides | None:
        """Return the choices with a shape that a person gave; None where they left."""
        dialogue = self.dialogue
        dialogue.log("Measuring this machine ...", "dim")
        self.measure()
        dialogue.log(
            "Enter keeps the value in brackets, ? explains, Esc goes one question back.", "dim"
        )

        while True:
            index = 0
            while index < len(QUESTIONS):
                if self._ask(QUESTIONS[index]):
                    index += 1
                elif index:
                    index -= 1  # Esc takes back one answer, not all of them
                else:
                    return None
            dialogue.log()
            dialogue.log(self.describe(self.values), "bold")
            entries = ["Use this configuration", "Go through it again", "Back without it"]
            picked = dialogue.choose("Configuration", entries)
            if picked in (None, 3):
                return None
            if picked == 1:
                return self.others | self.values | {"budget.planner": "manual"}

    def describe(self, values: Mapping[str, Any]) -> str:
        """Return what a shape costs on this machine: parameters, memory, time."""
        try:
            model = self._shape(values)
        except LightLMError as error:
            return str(error)

        params = count_parameters(model)
        phrase = f"{format_count(params)} parameters"
        memory = training_memory_bytes(model, 1, "muon")
        machine = self.measure()
        if machine is None:
            return f"{phrase}, {format_bytes(memory)} of memory"

        speed = Probe(machine=machine, shapes=()).speed_of(model, is_compiled=False)
        hours = float(values["budget.hours"])
        wanted = TOKENS_PER_PARAMETER * params
        phrase += (
            f", {format_bytes(memory)} of {format_bytes(usable_memory(machine))} of memory, about "
            f"{speed:,.0f} tokens/s; "
        )

        return phrase + (
            f"{hours:g} h read {format_count(hours * 3600 * speed)} tokens, "
            f"{TOKENS_PER_PARAMETER} per parameter take "
            f"{format_time(wanted / speed)}"
        )

    def _ask(self, question: Question) -> bool:
        """Return whether a value was given, which is then in `values`."""
        default = self._default(question)
        answer = self.dialogue.ask(
            f"{question.text} ({question.bounds})",
            lambda typed: self._read(question, typed),
            default=format_value(default),
            describe=lambda typed: self._foresee(question, typed or format_value(default)),
        )
        if answer is None:
            return False
        self.values[question.name] = answer
        return True

    def _default(self, question: Question) -> Any:
        value = self.values[question.name]
        dim = int(self.values["model.model_dim"])
        if question.name == "model.num_heads" and dim % (2 * value):
            return choose_heads(dim)
        return value

    def _foresee(self, question: Question, typed: str) -> str:
        if typed == "?":
            return question.meaning
        try:
            value = self._read(question, typed)
        except LightLMError as error:
            return str(error)
        values = self.values | {question.name: value}
        dim = int(values["model.model_dim"])
        if question.name != "model.num_heads" and dim % (2 * values["model.num_heads"]):
            values |= {"model.num_heads": choose_heads(dim)}
        return self.describe(values)

    def _read(self, question: Question, typed: str) -> Any:
        """Return the value that was typed.

        Raises:
            ParameterError: it is none, or out of bounds; or the question's meaning, where that was
                asked for.
        """
        if typed in ("?", "help"):
            raise ParameterError(question.meaning)
        value: Any = typed
        if question.is_switch:
            if typed.lower() not in YES + NO + ("on", "off", "true", "false"):
                raise ParameterError(f"{question.text}: wanted on or off, got {typed!r}")
            value = typed.lower() in (*YES, "on", "true")
        checked = {question.name: value}
        if question.name == "model.num_heads":
            checked["model.model_dim"] = self.values["model.model_dim"]
        return load_params(overrides=checked).flatten()[question.name]

    def _shape(self, values: Mapping[str, Any]) -> ModelConfig:
        params = load_params(overrides=values)
        shape = {name: int(values[f"model.{name}"]) for name in DEFAULT_SHAPE}
        return build_shape(params, vocab_size=params.tokenizer.vocab_size or ASSUMED_VOCAB, **shape)


def format_value(value: Any) -> str:
    """Return "on", "off", or the number."""
    return (
        ("on" if value else "off")
        if isinstance(value, bool)
        else f"{value:g}"
        if value < 1e6
        else str(value)
    )


def format_time(seconds: float) -> str:
    """Return a time that may be years."""
    days = seconds / 86_400
    return (
        format_seconds(seconds)
        if days < 2
        else f"{days:,.0f} days"
        if days < 730
        else f"{days / 365.25:,.0f} years"
    )
