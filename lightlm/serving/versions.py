"""The versions that a server has loaded: found by name, kept in memory, replaced as aliases move.

A version that an alias leaves finishes its running texts; new requests get the alias's new version
once its weights are loaded.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.errors import LightLMError, ModelVersionError
from lightlm.redaction import redact
from lightlm.serving.errors import ApiError, refuse_trouble
from lightlm.serving.metrics import EngineState
from lightlm.tracking.catalog import list_models, parse_model, resolve
from lightlm.tracking.registry import ModelVersion, download, list_versions

if TYPE_CHECKING:
    from lightlm.data.tokenization.tokenizer import Tokenizer
    from lightlm.generation.engine import Delivery, Engine
    from lightlm.serving.chat import ChatTemplate

LOGGER = logging.getLogger("lightlm.serving")

POLL_SECONDS = 1.0
"""Seconds between two looks whether an alias has moved."""

TROUBLE_SECONDS = 10.0
"""Seconds between two looks while MLflow or a version cannot be used."""

RETRY_SECONDS = 60.0
"""Seconds until a version that could not be loaded is tried again."""

MOST_NAMES = 100
"""Names of models that are followed; of more, those asked for last."""


@dataclass(frozen=True)
class Limits:
    """How much a server takes on."""

    max_rows: int
    max_waiting: int
    max_versions: int
    device: str = "cpu"


@dataclass(eq=False)
class LoadedVersion:
    """A version whose engine runs."""

    version: ModelVersion
    engine: "Engine"
    template: "ChatTemplate | None"
    longest_token: int
    """Bytes of the longest token; N tokens hold at most N times as many."""

    @property
    def name(self) -> str:
        """The version's name in answers: NAME/VERSION."""
        return f"{self.version.name}/{self.version.version}"

    @property
    def tokenizer(self) -> "Tokenizer":
        """The version's tokenizer."""
        return self.engine.batch.tokenizer


@dataclass
class VersionPool:
    """The loaded versions of a home, and the names that requests have found them by.

    `model` and `name` choose the version of requests that name none, as for `lightlm generate`.
    """

    home: Path
    model: str | None
    name: str | None
    limits: Limits
    deliver: "Callable[[Delivery], None]"
    loaded: "OrderedDict[tuple[str, str], LoadedVersion]" = field(default_factory=OrderedDict)
    """By name and version, those used last at the end."""

    _found: "OrderedDict[str, ModelVersion]" = field(default_factory=OrderedDict)
    _failed: dict[str, float] = field(default_factory=dict)
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def find(self, wanted: str | None) -> LoadedVersion:
        """Return the version that a request names, loaded; None is the server's own.

        Raises:
            ApiError: there is none such, or it cannot be loaded.
        """
        key = wanted or ""
        with explain_trouble():
            version = self._found.get(key)
            if version is None:
                version = await asyncio.to_thread(self._resolve, key)
            loaded = await self._load(version)

        self._found[key] = version
        self._found.move_to_end(key)
        while len(self._found) > MOST_NAMES:
            self._found.popitem(last=False)
        return loaded

    async def look_up(self, wanted: str) -> ModelVersion:
        """Return the version that a name means now, without loading it.

        Raises:
            ApiError: there is none such.
        """
        with explain_trouble():
            return await asyncio.to_thread(self._resolve, wanted)

    async def follow_aliases(self) -> None:
        """Load the versions that aliases move to, until cancelled; log each trouble once."""
        trouble = ""
        while True:
            await asyncio.sleep(TROUBLE_SECONDS if trouble else POLL_SECONDS)
            now = ""
            for key in ["", *filter(_can_move, self._found)]:
                try:
                    await self._follow(key)
                except ModelVersionError:
                    pass  # an alias or a version that was removed: asking for it gives the error
                except LightLMError as error:
                    now = redact(str(error))

            if now and now != trouble:
                LOGGER.warning("%s; the loaded versions are served", now)
            trouble = now

    async def _follow(self, key: str) -> None:
        before = self._found.get(key)
        after = await asyncio.to_thread(self._resolve, key)
        is_same = before is not None and after.uri == before.uri
        if is_same or self._failed.get(after.uri, 0) > time.monotonic():
            return

        self._failed[after.uri] = time.monotonic() + RETRY_SECONDS
        loaded = await self._load(after)
        del self._failed[after.uri]
        self._found[key] = after
        LOGGER.info("%s is now %s", key or "the served model", loaded.name)
        if before is not None and before.uri not in {one.uri for one in self._found.values()}:
            self._drop(before)

    async def _load(self, version: ModelVersion) -> LoadedVersion:
        place = (version.name, version.version)
        found = self.loaded.get(place)
        if found is None:  # a loaded version does not wait until another one is
            async with self._loading:
                found = self.loaded.get(place) or await asyncio.to_thread(
                    load_version, self.home, version, self.limits, self.deliver
                )
                self.loaded[place] = found
        self.loaded.move_to_end(place)
        while len(self.loaded) > self.limits.max_versions:
            _, oldest = self.loaded.popitem(last=False)
            oldest.engine.close()
        return found

    def _drop(self, version: ModelVersion) -> None:
        loaded = self.loaded.pop((version.name, version.version), None)
        if loaded is not None:
            loaded.engine.close()

    def _resolve(self, key: str) -> ModelVersion:
        if not key:
            return resolve(self.home, self.model and complete_uri(self.model), self.name)
        found = resolve(self.home, complete_uri(key))
        if self.name is not None and found.name != self.name:
            raise ModelVersionError(f"this server has the model {self.name} alone")
        return found

    def read_states(self) -> Iterator[EngineState]:
        """Yield what each loaded version does now."""
        for loaded in list(self.loaded.values()):
            engine = loaded.engine
            yield EngineState(loaded.name, engine.num_running, engine.num_waiting)

    def is_healthy(self) -> bool:
        """Return whether every engine runs."""
        return all(loaded.engine.is_alive for loaded in list(self.loaded.values()))

    def close(self) -> None:
        """Let every engine finish its texts and end."""
        for loaded in self.loaded.values():
            loaded.engine.close()
        self.loaded.clear()


@contextmanager
def explain_trouble() -> Iterator[None]:
    """Turn a version that is not there, or cannot be had, into the error that clients get."""
    try:
        yield
    except ModelVersionError as error:
        raise ApiError(404, redact(str(error)), param="model", code="model_not_found") from None
    except LightLMError as error:
        LOGGER.warning("%s", redact(str(error)))
        raise refuse_trouble() from None


def _can_move(key: str) -> bool:
    """Return whether a name of a request may mean another version later; a number never does."""
    return bool(key) and parse_model(complete_uri(key))[2] in (None, "latest")


def complete_uri(name: str) -> str:
    """Return models:/NAME/VERSION of NAME/VERSION, and likewise of NAME@ALIAS; else the name."""
    is_part = not name.startswith("models:/") and ("/" in name or "@" in name)
    return f"models:/{name}" if is_part else name


def load_version(
    home: Path, version: ModelVersion, limits: Limits, deliver: "Callable[[Delivery], None]"
) -> LoadedVersion:
    """Return a version with its engine; its files are fetched and verified first.

    Raises:
        LightLMError: it cannot be had.
    """
    from lightlm.generation.engine import Engine
    from lightlm.generation.running_batch import open_batch
    from lightlm.serving.chat import load_template

    folder = download(home, version)
    batch = open_batch(folder, limits.max_rows, limits.device)
    engine = Engine(batch, deliver, limits.max_waiting)
    ids = range(batch.tokenizer.vocab_size)
    longest = max(len(batch.tokenizer.token_bytes.of(index)) for index in ids)
    return LoadedVersion(version, engine, load_template(folder), longest)


def list_served(home: Path, name: str | None) -> list[tuple[str, ModelVersion]]:
    """Return the names that requests may give with their versions: aliases, then versions.

    Raises:
        LightLMError: MLflow's store cannot be used.
    """
    found = []
    for model in list_models(home):
        if name is not None and model.name != name:
            continue
        versions = list_versions(home, model.name)
        found += [
            (f"{model.name}@{alias}", version) for version in versions for alias in version.aliases
        ]
        found += [(f"{version.name}/{version.version}", version) for version in versions]
    return found
