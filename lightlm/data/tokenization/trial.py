"""The trial of a tokenizer from elsewhere, in a child process with limits: does every text come
back, byte for byte?

The child reads, checks, rewrites and builds what it is given and tries it on hard texts with our
own decoder. A pattern that backtracks for hours, a panic of the library or gigabytes of memory end
the child, not the run.
"""

import contextlib
import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer as Engine

from lightlm.child_process import SAFE_PATH, python_command
from lightlm.data.tokenization.adoption import Adoption, rewrite
from lightlm.data.tokenization.checks import REMEDY, parse_tokenizer
from lightlm.data.tokenization.hard_texts import HARD_TEXTS, surround
from lightlm.data.tokenization.token_bytes import TokenBytes
from lightlm.errors import TokenizerError
from lightlm.json_object import JsonObject

SECONDS = 60.0
"""Seconds that the child may take; Gemma's 262,144 entries take about 5."""

MEMORY_BYTES = 6 << 30
"""Bytes of address space of the child; 262,144 entries take under 2 GiB."""


@dataclass(frozen=True)
class Adopted:
    """A tokenizer that loses nothing: the text of its tokenizer.json, its end-of-text token, what
    was changed.
    """

    text: str
    end: str
    notes: tuple[str, ...]


def adopt(content: bytes, source: str, named_end: str | None = None) -> Adopted:
    """Return the tokenizer of a tokenizer.json's content, rewritten so that it loses no text, after
    its trial.

    Raises:
        TokenizerError: it is malformed, it loses text however it is rewritten, or its trial ended
            at a limit.
    """
    request = json.dumps({"source": source, "end": named_end}).encode() + b"\n" + content
    # One thread and one arena: threads' stacks and arenas count as address space, and a machine has
    # many cores.
    limits = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "1"}
    process = subprocess.Popen(
        python_command("lightlm.data.tokenization.trial"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | SAFE_PATH | limits,
        start_new_session=True,
    )

    try:
        output, _ = process.communicate(request, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise TokenizerError(
            f"{source} took more than {SECONDS:.0f} s to build and try; {REMEDY}"
        ) from None
    finally:
        process.kill()
        process.communicate()

    try:
        answer = json.loads(output)
    except ValueError:
        raise TokenizerError(
            f"{source} cannot be built and tried within {MEMORY_BYTES >> 30} GiB of memory "
            f"(the trial ended with exit code {process.returncode}); {REMEDY}"
        ) from None

    if "refused" in answer:
        raise TokenizerError(answer["refused"])

    return Adopted(answer["text"], answer["end"], tuple(answer["notes"]))


def serve(content: bytes, source: str, named_end: str | None) -> JsonObject:
    """Return what the child answers: a tokenizer, or why there is none."""
    try:
        values = parse_tokenizer(content, source)
        kind = values["model"]["type"]
        with library_errors(f"{source} cannot be used"):
            try:
                adoption = rewrite(values, named_end)
            except TokenizerError as error:
                raise TokenizerError(
                    f"{source} {error}; give a byte-level BPE, or --set tokenizer.source=train"
                ) from None
            loss: tuple[str, str] | None = None
            for attempt in _vary(adoption):
                engine = Engine.from_str(json.dumps(attempt.values))
                engine.encode_special_tokens = True
                added = [token["content"] for token in adoption.values["added_tokens"]]
                found = find_loss(engine, attempt, [*HARD_TEXTS, *surround(added)])
                if found is None:
                    return {"text": engine.to_str(), "end": attempt.end, "notes": attempt.notes}
                loss = loss or found
    except TokenizerError as error:
        return {"refused": str(error)}

    assert loss is not None
    return {
        "refused": f"{source}, a {kind} tokenizer, loses text: {_show(loss[0])} comes back as "
        f"{_show(loss[1])}; "
        "give a byte-level BPE, or one with byte fallback, or --set tokenizer.source=train"
    }


def find_loss(engine: Engine, adoption: Adoption, texts: Sequence[str]) -> tuple[str, str] | None:
    """Return a text that does not come back by our own decoder or the library's, and what did; None
    where all do.
    """
    tokens = TokenBytes(adoption.values, engine)
    end = engine.token_to_id(adoption.end)
    losses = []

    for text, encoding in zip(
        texts, engine.encode_batch(list(texts), add_special_tokens=False), strict=True
    ):
        back = b"".join(tokens.of(index) for index in encoding.ids if index != end)
        if back != text.encode("utf-8"):
            losses.append((text, back.decode("utf-8", "replace")))
        elif (theirs := engine.decode(encoding.ids, skip_special_tokens=False)) != text:
            losses.append((text, theirs))

    return min(losses, key=lambda loss: (len(loss[0]) < 4, len(loss[0])), default=None)


@contextlib.contextmanager
def library_errors(message: str) -> Iterator[None]:
    """Turn what the tokenizers library raises, bare exceptions and Rust's panics, into a
    TokenizerError.

    Raises:
        TokenizerError: begins with `message`.
    """
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        line = " ".join(str(error).split()) or type(error).__name__
        raise TokenizerError(f"{message}: {line[:200]}; {REMEDY}") from None


def _vary(adoption: Adoption) -> Iterator[Adoption]:
    """Yield an adoption as it is, then with what may still lose text left out, one thing after the
    other.
    """
    yield adoption
    values = adoption.values
    notes = adoption.notes

    if values["model"].get("ignore_merges"):
        values = copy.copy(values)
        notes = [*notes, "words are built by merges alone (ignore_merges is off)"]
        values["model"] = values["model"] | {"ignore_merges": False}
        yield Adoption(values, adoption.end, notes)

    plain = [token for token in values["added_tokens"] if not token.get("special")]
    if plain:
        values = copy.copy(values)
        notes = [*notes, f"its {len(plain)} added tokens are no longer cut out of a text"]
        values["added_tokens"] = [token for token in values["added_tokens"] if token.get("special")]
        yield Adoption(values, adoption.end, notes)


def _show(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _set_limits() -> None:
    """Bound this process's memory, where the system can."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


if __name__ == "__main__":
    _set_limits()
    asked = json.loads(sys.stdin.buffer.readline())
    sys.stdout.write(json.dumps(serve(sys.stdin.buffer.read(), asked["source"], asked["end"])))
