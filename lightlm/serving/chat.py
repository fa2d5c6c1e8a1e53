"""Conversations as the text that a model was trained to continue, by its chat template."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine

from lightlm.errors import TokenizerError
from lightlm.json_object import JsonObject
from lightlm.store.remembered import read_object

TEMPLATE_FILE = "chat_template.jinja"
MOST_TEMPLATE_BYTES = 1 << 20


@dataclass(frozen=True)
class ChatTemplate:
    """A version's template, and the tokenizer that reads its special tokens as tokens."""

    template: str
    engine: Engine
    special: dict[str, Any]
    """Texts of the special tokens, which templates name: bos_token, eos_token."""

    end_ids: frozenset[int]
    """Ids that end an answer."""

    def encode(self, messages: Sequence[JsonObject]) -> list[int]:
        """Return the ids of a conversation, up to where the answer begins.

        Raises:
            TokenizerError: the template refuses the conversation.
        """
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            # Rendered in Jinja's sandbox: a template calls nothing and writes nothing.
            rendered, _ = render_jinja_template(
                conversations=[list(messages)],  # pyright: ignore[reportArgumentType]
                chat_template=self.template,
                add_generation_prompt=True,
                **self.special,
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise TokenizerError(
                f"the model's chat template refuses the messages: {error}"
            ) from None
        return self.engine.encode(rendered[0], add_special_tokens=False).ids


def load_template(folder: Path) -> ChatTemplate | None:
    """Return the chat template of a Hugging Face folder; None where it has none."""
    config = read_object(folder / "tokenizer_config.json")
    template = _read_template(folder) or config.get("chat_template")
    if not isinstance(template, str):
        return None

    engine = Engine.from_file(str(folder / "tokenizer.json"))
    special = {
        name: _read_token(config.get(name)) for name in ("bos_token", "eos_token", "pad_token")
    }
    ends = read_object(folder / "generation_config.json").get("eos_token_id")
    ids = ends if isinstance(ends, list) else [ends]
    own = engine.token_to_id(special["eos_token"]) if special["eos_token"] else None
    found = frozenset(index for index in [*ids, own] if isinstance(index, int))
    return ChatTemplate(template, engine, special, found)


def _read_template(folder: Path) -> str | None:
    path = folder / TEMPLATE_FILE
    if path.is_file() and path.stat().st_size <= MOST_TEMPLATE_BYTES:
        return path.read_text(encoding="utf-8")
    return None


def _read_token(value: Any) -> str:
    """Return a special token's text; configs hold it alone or as an object's content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
