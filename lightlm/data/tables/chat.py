"""Records of a chat or of a task, and nested values, as one document each: by a plain template,
never by repr.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lightlm.data.tables.columns import MINOR_SHARE, Rating, rate_column

CHAT_COLUMNS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat")
"""Names under which chats usually stand; others are found by their values."""

PAIRS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "instruction": (
        ("instruction", "input", "context"),
        ("output", "response", "completion", "answer"),
    ),
    "prompt": (("prompt",), ("completion", "response", "output", "answer")),
    "question": (("question",), ("answer", "response", "completion")),
}
"""Records of a request and a reply: the template's name, the names of the request's parts, the
reply's names.
"""

NAMES = {"human": "User", "user": "User", "prompter": "User", "gpt": "Assistant",
         "bot": "Assistant",
         "assistant": "Assistant", "model": "Assistant", "chatgpt": "Assistant",
         "system": "System"}  # fmt: skip

LEAST_BLANKS = 3
MAX_PROSE_DEPTH = 8
"""Blanks of a text that is more than a name, and levels in which such texts are looked for."""

MAX_DEPTH = 8
"""Levels of objects in which texts are offered by a dotted name."""


def look_up(row: Mapping[str, Any], column: str) -> Any:
    """Return the value under a name, which may be dotted (`message.text`); None where there is
    none.
    """
    if column in row:
        return row[column]
    head, _, rest = column.partition(".")
    while rest:
        inside = row.get(head)
        if isinstance(inside, Mapping):
            return look_up(inside, rest)
        part, _, rest = rest.partition(".")
        head = f"{head}.{part}"
    return None


def list_nested(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the dotted names of texts inside of the objects of rows."""
    names: dict[str, None] = {}

    def visit(value: Any, prefix: str, depth: int) -> None:
        if isinstance(value, Mapping) and depth <= MAX_DEPTH:
            for key, inside in value.items():
                visit(inside, f"{prefix}.{key}" if prefix else str(key), depth + 1)
        elif isinstance(value, str) and depth > 1:
            names[prefix] = None

    for row in rows:
        visit(row, "", 0)
    return list(names)


def count_prose(value: Any, depth: int = 0) -> int:
    """Return the characters of the texts of several words inside of lists of objects."""
    if isinstance(value, str):
        return len(value) if depth > 1 and value.count(" ") >= LEAST_BLANKS else 0
    inside = (
        value if isinstance(value, list) else value.values() if isinstance(value, Mapping) else ()
    )
    return sum(count_prose(item, depth + 1) for item in inside) if depth < MAX_PROSE_DEPTH else 0


def flatten_chat(value: Any) -> str | None:
    """Return a list of messages as paragraphs "User: ..." and "Assistant: ..."; None where it is no
    such list.
    """
    if not isinstance(value, list) or not value:
        return None

    paragraphs = []
    for message in value:
        if not isinstance(message, Mapping):
            return None
        speaker = next(
            (
                message[key]
                for key in ("role", "from", "speaker")
                if isinstance(message.get(key), str)
            ),
            None,
        )
        key = next((key for key in ("content", "value", "text") if key in message), None)
        if speaker is None or key is None:
            return None
        text = join_parts(message[key])
        if text:
            paragraphs.append(f"{NAMES.get(speaker.casefold(), speaker.capitalize())}: {text}")

    return "\n\n".join(paragraphs)


def join_parts(content: Any) -> str:
    """Return the text of a message: a string, or the text parts of a list of parts; pictures and
    calls are left out.
    """
    if isinstance(content, str):
        return content.strip("\n")
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        return ""

    texts = [
        part if isinstance(part, str) else part.get("text")
        for part in content
        if isinstance(part, str | Mapping)
    ]

    return "\n".join(text for text in texts if isinstance(text, str) and text)


def flatten_pair(row: Mapping[str, Any]) -> str | None:
    """Return a record of a request and a reply as two paragraphs; None where it is none."""
    found = find_pair(row)
    if found is None:
        return None
    asked, replied = found
    request = "\n\n".join(
        str(row[name]) for name in asked if isinstance(row.get(name), str) and row[name].strip()
    )
    return f"User: {request}\n\nAssistant: {row[replied]}"


def find_pair(row: Mapping[str, Any]) -> tuple[tuple[str, ...], str] | None:
    """Return the names of a row's request and of its reply, both texts."""
    for asking, replying in PAIRS.values():
        if isinstance(row.get(asking[0]), str):
            reply = next((name for name in replying if isinstance(row.get(name), str)), None)
            if reply is not None:
                return tuple(name for name in asking if name in row), reply
    return None


def flatten_value(value: Any) -> str | None:
    """Return any value of a column as text; None where it is an object without a text of
    its own.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"

    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return "\n".join(value)
        return flatten_chat(value)

    return None


def find_template(
    rows: Sequence[Mapping[str, Any]], ratings: Mapping[str, Rating], named: str | None
) -> tuple[str, str] | None:
    """Return (template, column) where rows are records of a chat or a task and no column of text
    says more.

    The template is "chat", "pair" or "list"; a template of a named column is that column's alone.
    """
    if named is not None:
        values = [look_up(row, named) for row in rows]
        return _find_list_template(values, named, is_named=True)

    columns = sorted(ratings, key=lambda name: name.casefold() not in CHAT_COLUMNS)
    largest = max(
        (rating.characters for rating in ratings.values() if rating.kind == "text"), default=0.0
    )

    for column in columns:
        if ratings[column].kind != "nested":
            continue
        values = [row.get(column) for row in rows]
        found = _find_list_template(values, column)
        if found is None:
            continue
        texts = [text for text in map(flatten_value, values) if text]
        if sum(map(len, texts)) / len(rows) >= largest and (
            found[0] == "chat" or _holds_text(texts, values)
        ):
            return found

    return _find_pair_template(rows, ratings)


def _find_list_template(
    values: Sequence[Any], column: str, is_named: bool = False
) -> tuple[str, str] | None:
    lists = [value for value in values if isinstance(value, list) and value]
    present = [value for value in values if value not in (None, "", [])]
    if not lists or len(lists) < (0.01 if is_named else 0.5) * len(present):
        return None
    if sum(flatten_chat(value) is not None for value in lists) >= 0.5 * len(lists):
        return "chat", column
    if all(isinstance(item, str) for value in lists for item in value):
        return "list", column
    return None


def _holds_text(texts: Sequence[str], values: Sequence[Any]) -> bool:
    """Return whether lists of strings hold sentences, not words or labels."""
    items = [
        item
        for value in values
        if isinstance(value, list)
        for item in value
        if isinstance(item, str)
    ]
    return bool(texts) and rate_column(items, len(items)).kind == "text"


def _find_pair_template(
    rows: Sequence[Mapping[str, Any]], ratings: Mapping[str, Rating]
) -> tuple[str, str] | None:
    found = [pair for row in rows if (pair := find_pair(row)) is not None]
    if len(found) < 0.5 * len(rows) or not found:
        return None
    asked, replied = max(found, key=found.count)
    used = (*asked, replied)
    length = sum(ratings[name].characters for name in used)
    others = (r.characters for name, r in ratings.items() if name not in used and r.kind == "text")
    return None if max(others, default=0.0) >= MINOR_SHARE * length else ("pair", ", ".join(used))
