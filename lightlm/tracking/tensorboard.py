"""TensorBoard's event files of a run, written from the run's journal while it grows.

The journal is the original: a process that starts again writes the files anew. Nothing waits for
this copy, and an error ends it alone.
"""

import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightlm.errors import ParameterError
from lightlm.store.disk import make_folder
from lightlm.tracking.following import SWITCHES, follow
from lightlm.tracking.record import AnyRecord, Metrics, Params, Start, Text

NICENESS = 10
"""Niceness of the thread that writes, on Linux: below training and the outbox."""

MOST_CHARACTERS = 20_000
"""Characters of a text that TensorBoard gets."""

TAG = "lightlm.tensorboard"
"""Tag of a run with the folder for event files of all runs."""

PATTERN = "events.out.tfevents.*"


def check_tensorboard(folder: str | None) -> None:
    """Refuse a folder for event files that is a switch, or where the package that writes them is
    missing.

    Raises:
        ParameterError: it is.
    """
    if folder is not None and folder.lower() in SWITCHES:
        raise ParameterError(
            f"tracking.tensorboard is {folder!r}, wanted a folder for the event files; give one, "
            "such as board, or leave it null"
        )
    if folder is not None and importlib.util.find_spec("tensorboard") is None:
        raise ParameterError(
            "tracking.tensorboard wants the package tensorboard; run `pip install "
            "'lightlm[tensorboard]'`, or leave it null"
        )


def tag_folder(folder: str | None) -> dict[str, str]:
    """Return the run's tag that names the folder for event files; {} without one.

    The path is absolute: the process that writes there has another current folder.
    """
    return {} if folder is None else {TAG: str(Path(folder).expanduser().absolute())}


class EventFiles:
    """The event files of one run in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        for old in folder.glob(PATTERN):
            old.unlink()
        module = "tensorboard.summary.writer.event_file_writer"
        self._writer = importlib.import_module(module).EventFileWriter(str(folder))

    def write(self, record: AnyRecord) -> None:
        """Write what TensorBoard shows of a record: numbers, samples and params."""
        if isinstance(record, Metrics):
            values = [{"tag": name, "simple_value": one} for name, one in record.values.items()]
            self._add(record, record.step, values)
        elif isinstance(record, Text) and record.sample_step is not None:
            self._add(record, record.sample_step, [describe_text("samples", record.content)])
        elif isinstance(record, Params):
            lines = [f"    {name}: {value}" for name, value in record.values.items()]
            self._add(record, 0, [describe_text("params", "\n".join(lines))])

    def flush(self) -> None:
        """Let TensorBoard see what was written."""
        self._writer.flush()

    def close(self) -> None:
        """Write the rest."""
        self._writer.close()

    def _add(self, record: AnyRecord, step: int, values: list[dict[str, Any]]) -> None:
        summary = import_proto("summary").Summary
        event = import_proto("event").Event(
            wall_time=record.time_ms / 1000,
            step=step,
            summary=summary(value=[summary.Value(**value) for value in values]),
        )
        self._writer.add_event(event)


def describe_text(tag: str, text: str) -> dict[str, Any]:
    """Return a text as TensorBoard's plugin for texts reads it."""
    metadata = import_proto("summary").SummaryMetadata
    shape = import_proto("tensor_shape").TensorShapeProto
    content = text[:MOST_CHARACTERS].encode("utf-8", "replace")
    return {
        "tag": tag,
        "metadata": metadata(plugin_data=metadata.PluginData(plugin_name="text")),
        "tensor": import_proto("tensor").TensorProto(
            dtype=import_proto("types").DT_STRING,
            string_val=[content],
            tensor_shape=shape(dim=[shape.Dim(size=1)]),
        ),
    }


def import_proto(name: str) -> Any:
    """Return a module of TensorBoard's messages."""
    return importlib.import_module(f"tensorboard.compat.proto.{name}_pb2")


def open_event_files(start: Start) -> EventFiles | None:
    """Return the event files of a run; None of one that asks for none."""
    return EventFiles(Path(start.tags[TAG]) / start.run_key) if TAG in start.tags else None


def start_following(
    folder: Path, is_over: threading.Event, complain: Callable[[BaseException], None]
) -> threading.Thread:
    """Follow a run in a thread; an error goes to `complain` and ends nothing else."""

    def run() -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            follow(folder, is_over, open_event_files)
        except Exception as error:  # noqa: BLE001  (whatever it raises, the run goes on without it)
            complain(error)

    thread = threading.Thread(target=run, name="tensorboard", daemon=True)
    thread.start()
    return thread
