"""The child that parses documents is bounded in time, memory and output; the file after a hostile
one is read.
"""

import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, cast

import pytest

from lightlm.data.formats import document_reader
from lightlm.data.formats.document_reader import DocumentReader
from lightlm.errors import DatasetError


@pytest.fixture
def reader() -> Iterator[DocumentReader]:
    found = DocumentReader()
    yield found
    found.close()


def extract(reader: DocumentReader, content: bytes, kind: str, name: str = "x") -> list[str]:
    return list(reader.extract(partial(cast(type[BinaryIO], io.BytesIO), content), kind, name))


def process_id(reader: DocumentReader) -> int | None:
    return reader._process.pid if reader._process is not None else None


def make_docx(size: int) -> bytes:
    sink = io.BytesIO()
    head = b'<w:document xmlns:w="w"><w:body><w:p><w:r><w:t>'
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "word/document.xml", head + b"a" * size + b"</w:t></w:r></w:p></w:body></w:document>"
        )
    return sink.getvalue()


def test_one_child_reads_many_files_and_starts_without_heavy_imports(
    reader: DocumentReader,
) -> None:
    assert extract(reader, b"<p>one", "page") == ["one"]
    first = process_id(reader)
    with pytest.raises(DatasetError, match=r"^x is no mailbox"):
        extract(reader, b"none" * 100_000, "mailbox")
    assert extract(reader, b"<p>two", "page") == ["two"]
    assert process_id(reader) == first

    imported = subprocess.run(
        [sys.executable, "-P", "-c", "import sys, lightlm.data.formats.child as c; "
                                     "c.choose_extract('pdf');"
         "print([m for m in ('torch', 'numpy', 'pyarrow', 'transformers', 'pypdf') if m in "
         "sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert imported.stdout == "[]\n"


def test_a_file_that_takes_too_long_is_given_up_and_the_next_one_is_read() -> None:
    reader = DocumentReader(seconds=0.5)
    with pytest.raises(DatasetError, match=r"^slow was given up: its parser needs more than"):
        # Every "<" makes Python's parser look through the rest of the page.
        extract(reader, b"<a " * 60_000, "page", "slow") and extract(
            reader, b"<" * 30_000_000, "page", "slow"
        )
    assert extract(reader, b"<p>next", "page") == ["next"]
    reader.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process's memory")
def test_a_file_that_needs_too_much_memory_is_refused_and_the_next_one_is_read() -> None:
    reader = DocumentReader(memory_bytes=200 << 20)
    content = b'{"cells": [' + b'{"a":1},' * 3_000_000 + b"0]}"  # 24 MB, as Python's objects 700 MB
    with pytest.raises(DatasetError, match=r"^big needs too much memory"):
        extract(reader, content, "notebook", "big")
    assert extract(reader, b"<p>next", "page") == ["next"]
    reader.close()


def test_a_document_that_expands_too_far_is_refused_and_the_next_one_is_read(
    reader: DocumentReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match=r"^bomb holds word/document\.xml of 135 MB"):
        extract(reader, make_docx(135_000_000), "docx", "bomb")
    monkeypatch.setattr(document_reader, "OUTPUT_BYTES", 1_000_000)
    with pytest.raises(DatasetError, match=r"^bomb gives more than .* MB of text"):
        extract(reader, make_docx(10_000_000), "docx", "bomb")
    assert extract(reader, b"<p>next", "page") == ["next"]


def test_entities_that_expand_in_xml_are_refused(reader: DocumentReader) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(
            "word/document.xml", f'<!DOCTYPE d [<!ENTITY e0 "ha">{entities}]><d><t>&e9;</t></d>'
        )
    with pytest.raises(DatasetError, match="declares entities"):
        extract(reader, sink.getvalue(), "docx")


def test_a_pdf_stream_that_expands_without_end_is_refused(reader: DocumentReader) -> None:
    packed = zlib.compress(bytes(200_000_000), 9)
    page = b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << >> >>"
    body = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        page,
        body,
    ]

    content = b"%PDF-1.4\n" + b"".join(
        b"%d 0 obj\n%s\nendobj\n" % (n, o) for n, o in enumerate(objects, 1)
    )

    with pytest.raises(
        DatasetError, match=r"^bomb (cannot be read|has pages but no text|needs more)"
    ):
        extract(reader, content + b"trailer << /Root 1 0 R >>\n%%EOF\n", "pdf", "bomb")


def test_a_child_that_dies_is_named_and_followed_by_another(reader: DocumentReader) -> None:
    assert extract(reader, b"<p>one", "page") == ["one"]
    first = process_id(reader)
    assert first is not None

    def kill_first() -> BinaryIO:
        os.kill(first, 9)
        return cast(BinaryIO, io.BytesIO(b"<p>two"))

    with pytest.raises(DatasetError, match=r"^x ended its parser \(signal 9\)"):
        list(reader.extract(kill_first, "page", "x"))
    assert extract(reader, b"<p>three", "page") == ["three"]
    assert process_id(reader) != first


def test_an_input_that_fails_in_the_middle_is_refused_in_its_own_words(
    reader: DocumentReader,
) -> None:
    class Torn(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 100_000:
                raise DatasetError("notes.mbox.gz ends in the middle; download or pack it again")
            return super().read(size)

    message = b"From a Mon Jan 01 10:00:00 2024\nSubject: x\n\nbody\n\n"
    found = []
    with pytest.raises(DatasetError, match=r"^notes\.mbox\.gz ends in the middle"):
        for document in reader.extract(
            lambda: cast(BinaryIO, Torn(message * 10_000)), "mailbox", "notes.mbox.gz"
        ):
            found.append(document)

    assert found and set(found) == {"Subject: x\n\nbody"}
    first = process_id(reader)
    assert extract(reader, b"<p>next", "page") == ["next"]
    assert process_id(reader) == first

    def missing() -> BinaryIO:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(DatasetError, match=r"cannot be read \(No such file or directory\)"):
        list(reader.extract(missing, "page", "gone.html"))


def test_a_mailbox_larger_than_any_whole_file_is_read_with_little_memory(
    reader: DocumentReader,
) -> None:
    message = (
        b"From a Mon Jan 01 10:00:00 2024\nSubject: x\n\n" + b"a body of text\n" * 3_000 + b"\n"
    )

    class Endless(io.RawIOBase):
        left = 500

        def readable(self) -> bool:
            return True

        def readall(self) -> bytes:
            raise AssertionError("read in parts")

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            return message if self.left > 0 else b""

    documents = reader.extract(lambda: cast(BinaryIO, Endless()), "mailbox", "x.mbox")
    assert sum(1 for _ in documents) == 499


def test_files_may_be_read_by_turns_and_left_in_the_middle(reader: DocumentReader) -> None:
    mailbox = b"From a Mon Jan 01 10:00:00 2024\nSubject: %d\n\nbody\n\n"
    content = b"".join(mailbox % number for number in range(5_000))
    open_input = partial(cast(type[BinaryIO], io.BytesIO), content)
    one = reader.extract(open_input, "mailbox", "one")
    other = reader.extract(open_input, "mailbox", "other")
    assert [next(one), next(other), next(one)] == [f"Subject: {n}\n\nbody" for n in (0, 0, 1)]
    one.close()
    assert sum(1 for _ in other) == 4_999
    assert extract(reader, b"<p>next", "page") == ["next"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_a_slow_input_is_not_held_against_the_parser() -> None:
    reader = DocumentReader(seconds=1.0)
    assert extract(reader, b"<p>one", "page") == ["one"]

    def open_late() -> BinaryIO:
        time.sleep(1.5)
        return cast(BinaryIO, io.BytesIO(b"<p>late"))

    assert list(reader.extract(open_late, "page", "late")) == ["late"]
    reader.close()


def test_the_child_ends_with_its_parent() -> None:
    script = (
        "import io\nfrom lightlm.data.formats.documents import extract_documents, _SHARED\n"
        "documents = extract_documents(lambda: io.BytesIO(b'<p>hi'), '.html', 'x')\n"
        "print(next(documents), _SHARED._process.pid, flush=True)\n"
        "import os; os.kill(os.getpid(), 9)"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )
    text, pid = done.stdout.split()
    assert text == "hi"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _is_alive(int(pid)):
        time.sleep(0.02)

    assert not _is_alive(int(pid))


def _is_alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_parser_prints_disturbs_no_answer() -> None:
    script = (
        "import lightlm.data.formats.child as c, lightlm.data.formats.markup_text as m\n"
        "read = m.read_page\n"
        "m.read_page = lambda page, **_: (print('noise', flush=True), read(page))[1]\n"
        "c.main()"
    )
    content = json.dumps({"kind": "page"}).encode() + b"\n\x05\0\0\0<p>hi\0\0\0\0"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], input=content, capture_output=True, check=True
    )
    assert done.stdout == b"P\x02\0\0\0hiE\0\0\0\0F\0\0\0\0"
