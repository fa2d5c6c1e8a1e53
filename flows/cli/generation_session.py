"""The session of `lightlm generate`: prompts in, text out, until `quit`.

Commands begin with a slash. Text goes to standard output, all else to standard error, so that a
pipe keeps the texts. A version is loaded once.
"""

import difflib
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlm.console.escape import escape_for_terminal
from lightlm.console.hardware import render_facts
from lightlm.console.menus import Dialogue, has_keys
from lightlm.errors import InputError, LightLMError, PromptError
from lightlm.quantities import count, format_count
from lightlm.tracking.registry import ModelVersion, download
from lightlm.versions.text import Sampling, check_request, open_version

if TYPE_CHECKING:
    from lightlm.generation.text import Generator

TITLE = "LightLM - Text Generation"
LEAVING = ("quit", "exit", "/quit", "/exit")
MOST_COMPARED = 4
HISTORY = "prompts.txt"

HELP = {
    "/temperature 0.7": "how daring; 0 always takes the likeliest token",
    "/top-k 50": "of how many tokens the next one is drawn; 0: of all",
    "/top-p 0.95": "of tokens that together have this share; 1: of all",
    "/repetition-penalty 1.2": "above 1 repeats less",
    "/length 128": "tokens to write",
    "/seed 7": "the same seed writes the same text; /seed none: another each time",
    "/version 3": "another registered version; also an alias, or models:/NAME/3",
    "/versions": "the registered versions",
    "/compare 2 3": "the next prompts by several versions side by side; /compare off",
    "/settings": "the values in force",
    "/help": "this list",
    "quit": "ends; so do Esc, Ctrl-C and Ctrl-D",
}

SETTINGS = {
    "/temperature": "temperature",
    "/top-k": "top_k",
    "/top-p": "top_p",
    "/repetition-penalty": "repetition_penalty",
    "/length": "max_new_tokens",
    "/seed": "seed",
}


class TextGeneration:
    """One session. `sampling`: the given values; `compared`: versions to show side by side."""

    def __init__(
        self,
        home: Path,
        dialogue: Dialogue,
        version: ModelVersion,
        sampling: Sampling,
        show: Callable[[str], str],
    ) -> None:
        self.home = home
        self.dialogue = dialogue
        self.sampling = dict(sampling)
        self.show = show
        self.compared: list[ModelVersion] = []
        self.version = version
        self._generators: dict[str, Generator] = {}

    def run(self) -> None:
        """Show the version, then answer prompts until the person leaves."""
        self.dialogue.log(TITLE, "bold")
        self.show_version()
        self.dialogue.log()
        self.dialogue.log("Type a text to continue; /help lists the commands, quit ends.", "dim")

        while True:
            line = self.dialogue.reader.read("> ")
            if line is None or line.lower() in LEAVING:
                return
            if not line:
                continue
            try:
                self._obey(line) if line.startswith("/") else self.answer(line)
            except LightLMError as error:
                self.dialogue.warn(str(error))
            except KeyboardInterrupt:
                self.dialogue.log(" (stopped)")

    def answer(self, prompt: str) -> None:
        """Write the continuation of a prompt as it comes, or those of the compared versions."""
        if self.compared:
            from lightlm.console.tables import render_side_by_side

            texts = {
                version.version: prompt + "".join(self._stream(version, prompt))
                for version in self.compared
            }
            self.dialogue.show(
                render_side_by_side({f"version {name}": text for name, text in texts.items()})
            )
            return

        pieces = self._stream(self.version, prompt)
        first = next(pieces, "")  # a prompt that is too long is refused here, before it is shown
        try:
            sys.stdout.write(self.show(prompt) + self.show(first))
            sys.stdout.flush()
            for piece in pieces:
                sys.stdout.write(self.show(piece))
                sys.stdout.flush()
        finally:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def show_version(self) -> None:
        """Print the version's size, vocabulary, context, dims, layers, score, date and text."""
        self.dialogue.show(
            render_facts(f"Model {self.version.name} version {self.version.version}", self.facts())
        )

    def facts(self) -> dict[str, str]:
        """Return the facts about the version, by name."""
        config = self._generator(self.version).model.config
        tags = self.version.tags
        aliases = f" ({', '.join(self.version.aliases)})" if self.version.aliases else ""
        experts = (
            f", {config.num_active_experts} of {config.num_experts} experts"
            if config.num_experts
            else ""
        )

        trained_at = self.version.created_at.astimezone()
        return {
            "Version": f"{self.version.version}{aliases}",
            "Size": f"{format_count(float(tags.get('num_parameters', 0)))} parameters",
            "Vocabulary": f"{config.vocab_size:,} entries",
            "Context": f"{config.context_length:,} tokens",
            "Dimensions": str(config.model_dim),
            "Layers": f"{config.num_layers}, {count(config.num_heads, 'head')}{experts}",
            "Score": format_score(tags),
            "Trained": f"{format_when(tags.get('trained_at'), trained_at)}, "
            f"{tags.get('hours', '?')} h on {tags.get('dataset', 'unknown data')}",
        }

    def _obey(self, line: str) -> None:
        command, *words = line.split()
        if command in SETTINGS:
            self._set(command, words)
        elif command == "/version" and len(words) == 1:
            self.version = open_version(self.home, self._name(words[0]))
            self.compared = []
            self.show_version()
        elif command == "/compare" and words == ["off"]:
            self.compared = []
            self.dialogue.log(
                f"The next prompts go to version {self.version.version} alone.", "dim"
            )
        elif command == "/compare" and 2 <= len(words) <= MOST_COMPARED:
            compared = [open_version(self.home, self._name(word)) for word in words]
            if len({version.version for version in compared}) < len(compared):
                raise InputError(
                    f"{' and '.join(words)} name the same version; /versions lists them all"
                )
            self.compared = compared
            self.dialogue.log(
                f"The next prompts go to the versions {', '.join(words)}; /compare off ends that."
            )
        elif command == "/versions":
            from lightlm.console.tables import render_versions
            from lightlm.tracking.registry import list_versions

            self.dialogue.show(render_versions(list_versions(self.home, self.version.name)))
        elif command == "/settings":
            values = check_request("x", self.sampling)
            phrase = {command: values[name] for command, name in SETTINGS.items()}
            self.dialogue.show(
                render_facts(
                    "Settings", {n: "none" if v is None else str(v) for n, v in phrase.items()}
                )
            )
        elif command == "/help":
            self.dialogue.show(render_facts("Commands", HELP))
        else:
            close = difflib.get_close_matches(
                command, [name.split()[0] for name in HELP], n=1, cutoff=0.5
            )
            hint = f"did you mean {close[0]}? " if close else ""
            raise InputError(
                f"cannot use {line!r}; {hint}/help lists the commands and how they are written"
            )

    def _set(self, command: str, words: list[str]) -> None:
        name = SETTINGS[command]
        if len(words) != 1:
            raise InputError(
                f"{command} wants one value, as in {next(x for x in HELP if x.startswith(command))}"
            )

        value: Any = None if name == "seed" and words[0] in ("none", "off") else words[0]
        wanted = self.sampling | {name: value}
        checked = check_request("x", wanted)
        self.sampling = wanted | {name: checked[name]}
        self.dialogue.log(
            f"{command} is {'none' if checked[name] is None else checked[name]}", "dim"
        )

        context = self._generator(self.version).model.config.context_length
        if name == "max_new_tokens" and checked[name] > context:
            self.dialogue.log(
                f"The model sees its last {context:,} tokens; what is longer loses the thread.",
                "dim",
            )

    def _name(self, word: str) -> str:
        """Return models:/NAME/... for a typed number, alias of the same model, or whole name."""
        if word.startswith("models:/"):
            return word
        name = self.version.name
        return (
            f"models:/{name}/{word}"
            if word.isdigit() or word == "latest"
            else f"models:/{name}@{word}"
        )

    def _stream(self, version: ModelVersion, prompt: str) -> Iterator[str]:
        from lightlm.generation.sampling import check_sampling

        sampling = check_sampling(check_request(prompt, self.sampling))
        return self._generator(version).stream(prompt, sampling)

    def _generator(self, version: ModelVersion) -> "Generator":
        from lightlm.generation.text import load_generator

        if version.uri not in self._generators:
            self._generators[version.uri] = load_generator(download(self.home, version))
        return self._generators[version.uri]


def hold_dialogue(
    home: Path,
    model: str | None,
    name: str | None,
    sampling: Sampling,
    show: Callable[[str], str] = escape_for_terminal,
) -> None:
    """Hold a session at the terminal, or with lines from a pipe.

    Raises:
        PromptError: the pipe is empty.
        LightLMError: there is no such version.
    """
    check_request("x", sampling)
    dialogue = Dialogue()
    if has_keys(dialogue.console):
        from prompt_toolkit.history import FileHistory

        from lightlm.console.keys import KeyReader

        dialogue.reader = KeyReader(dialogue.console, FileHistory(str(home / HISTORY)))
    elif not sys.stdin.isatty():
        dialogue.reader = PeekedLines(dialogue)
    TextGeneration(home, dialogue, open_version(home, model, name), sampling, show).run()


class PeekedLines:
    """Lines of a pipe on standard input, the first of them read already."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.first: str | None = sys.stdin.readline()
        if not self.first:
            raise PromptError(
                'there is no prompt; give one, as in `lightlm generate "The"`, or lines of them'
            )
        self.dialogue = dialogue
        self.rest = dialogue.reader

    def read(self, question: str, describe: object = None, *, is_path: bool = False) -> str | None:
        """Return the next line; None at the end."""
        first = self.first
        self.first = None
        if first is None:
            return self.rest.read(question)
        self.dialogue.log(f"{question}{first.strip()}")
        return first.strip()

    def read_choice(self, lines: object, question: str, num_entries: int) -> str | None:
        """Return the next line: there are no menus here."""
        return self.read(question)


def format_score(tags: dict[str, str]) -> str:
    """Return the score of a version's tags."""
    bits = tags.get("bits_per_byte")
    return f"{float(bits):.3f} bits per byte of held-out text" if bits else "none"


def format_when(stamp: str | None, otherwise: datetime) -> str:
    """Return the local date and time of an ISO stamp."""
    try:
        when = datetime.fromisoformat(stamp) if stamp else otherwise
    except ValueError:
        when = otherwise
    return f"{when.astimezone():%Y-%m-%d %H:%M}"
