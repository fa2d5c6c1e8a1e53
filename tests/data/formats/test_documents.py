"""Documents become the text that a reader of them sees; what cannot be read is refused by name."""

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from functools import partial

import pytest

from lightlm.data.characters.decoding import Encoding, RowCounts
from lightlm.data.formats.documents import (
    DOCUMENT_SUFFIXES,
    close_reader,
    extract_documents,
    find_document_encoding,
)
from lightlm.errors import DatasetError

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


@pytest.fixture(scope="module", autouse=True)
def _close() -> Iterator[None]:
    yield
    close_reader()


def extract(content: bytes | str, suffix: str, encoding: Encoding | None = None) -> list[str]:
    data = content.encode() if isinstance(content, str) else content
    return list(
        extract_documents(partial(io.BytesIO, data), suffix, f"notes{suffix}", encoding=encoding)
    )


def pack(files: dict[str, str | bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def make_docx(body: str, **parts: str) -> bytes:
    files: dict[str, str | bytes] = {
        f"word/{name}.xml": f"<w:{name} {W}>{content}</w:{name}>" for name, content in parts.items()
    }
    return pack(
        {"word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>", **files}
    )


def make_paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def make_epub(chapters: dict[str, str], **more: str) -> bytes:
    items = "".join(
        f'<item id="c{number}" href="text/{name}" media-type="application/xhtml+xml"/>'
        for number, name in enumerate(sorted(chapters))
    )
    order = "".join(f'<itemref idref="c{sorted(chapters).index(name)}"/>' for name in chapters)
    package = f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{order}</spine></package>'

    return pack(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": "<container><rootfile "
            'full-path="OEBPS/book.opf"/></container>',
            "OEBPS/book.opf": package,
            **{f"OEBPS/text/{name}": content for name, content in chapters.items()},
            **{name.replace("__", "/"): content for name, content in more.items()},
        }
    )


def make_pdf(pages: list[str], catalog: str = "") -> bytes:
    """Return a PDF of pages with lines of text, written by hand."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {catalog} >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]

    for number, text in enumerate(pages):
        shown = " 0 -14 Td ".join(f"({line}) Tj" for line in text.split("\n"))
        stream = f"BT /F1 12 Tf 72 720 Td {shown} ET" if text else ""
        more = f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {more} >>")
        objects.append(f"<< /Length {len(stream.encode('cp1252'))} >>\nstream\n{stream}\nendstream")

    content = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n".encode("cp1252")

    table = "".join(f"{place:010} 00000 n \n" for place in places)
    start = len(content)
    content += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode()
    return (
        content
        + f"trailer << /Size {len(objects) + 1} /Root 1 0 R "
        f">>\nstartxref\n{start}\n%%EOF\n".encode()
    )


def test_a_page_gives_what_a_reader_sees_of_its_text() -> None:
    page = """<!DOCTYPE html><html><head><title>Shop - Notes</title><style>p { color: red }</style></head><body>
    <nav><ul><li>Home</ul></nav><header><h1>On  bread</h1></header>
    <p>Flour &amp; water,<br>a <b>pinch</b> of
    salt&nbsp;&mdash; no more.<p>Second<sup>2</sup> paragraph.
    <ul><li>knead<li>wait</ul><pre>
  x = 1
    y</pre><table><tr><th>Day<th>Loaf<tr><td>1<td>flat</table>
    <div hidden>secret</div><span style="display: none">tracker</span>
    <script>if (a < b) { document.write("<p>ad</p>") }</script><!-- note --><footer>Copyright</footer></body></html>"""

    assert extract(page, ".html") == [
        "On bread\n\nFlour & water,\na pinch of salt — no more.\n\nSecond2 "
        "paragraph.\n\nknead\nwait\n\n"
        "\n  x = 1\n    y\n\nDay Loaf\n1 flat"
    ]


def test_an_unended_menu_swallows_no_text() -> None:
    assert extract("<p>One</p><nav>Two<p>Three</p>", ".htm") == ["One\n\nTwo\n\nThree"]


@pytest.mark.parametrize(
    ("content", "text", "encoding"),
    [
        ('<meta charset="iso-8859-1"><p>Größe “x”'.encode("cp1252"), "Größe “x”", "cp1252"),
        (
            '<meta http-equiv=Content-Type content="text/html; charset=windows-1251"><p>Да'.encode(
                "cp1251"
            ),
            "Да",
            "cp1251",
        ),
        ('<meta charset="windows-1251"><p>Größe'.encode(), "Größe", "utf-8"),
        ("<p>Größe".encode("utf-16"), "Größe", "utf-16-le"),
    ],
)
def test_a_page_is_decoded_by_its_mark_by_utf_8_or_by_what_it_declares(
    content: bytes, text: str, encoding: str
) -> None:
    assert find_document_encoding(partial(io.BytesIO, content), ".html", "a.html").name == encoding
    assert extract(content, ".html") == [text]


def test_a_named_encoding_counts_and_undecodable_bytes_are_counted() -> None:
    content = "1\n00:00:01,000 --> 00:00:02,500\nПривет\n".encode("cp1251")
    named = find_document_encoding(partial(io.BytesIO, content), ".srt", "a.srt", "cp1251")
    assert extract(content, ".srt", named) == ["Привет"]

    counts = RowCounts()
    broken = b"<p>gr\xfcn</p>"
    found = extract_documents(
        partial(io.BytesIO, broken), ".html", "a", encoding=Encoding("utf-8"), counts=counts
    )
    assert list(found) == ["gr\ufffdn"]
    assert counts.replaced_bytes == 1


def test_subtitles_give_the_spoken_lines() -> None:
    srt = (
        "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>Who is</i> there?\r\n\r\n"
        "2\r\n00:00:03,000 --> 00:00:04,000\r\n{\\an8}It is 5\r\n- No.\r\n"
    )
    assert extract(srt, ".srt") == ["Who is there?\nIt is 5\n- No."]
    vtt = (
        "WEBVTT\nKind: captions\n\nNOTE nothing\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:01.000 --> 00:02.000 align:start\n"
        "<v Ann>so<00:01.500><c> what</c>\n\n00:02.000 --> 00:03.000\nso what\nnow\n"
    )
    assert extract(vtt, ".vtt") == ["so what\nnow"]


def test_subtitles_without_a_time_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"notes\.srt holds no subtitle with a time"):
        extract("just text\n", ".srt")


def test_a_notebook_gives_its_notes_and_code_without_outputs() -> None:
    picture = f"![p](data:image/png;base64,{base64.b64encode(bytes(300)).decode()})"
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text ", picture]},
        {
            "cell_type": "code",
            "source": "x = 1\nx",
            "outputs": [{"data": {"text/plain": ["printed"]}}],
        },
        {"cell_type": "raw", "source": []},
        "no cell",
    ]

    assert extract(json.dumps({"nbformat": 4, "cells": cells}), ".ipynb") == [
        "# Title\ntext ![p]\n\nx = 1\nx"
    ]
    third = {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": ["y = 2"]}]}]}
    assert extract(json.dumps(third), ".ipynb") == ["y = 2"]


@pytest.mark.parametrize("content", ["{", "[1]", '{"cells": 3}', '{"cells": [', "[" * 100_000])
def test_what_is_no_notebook_is_refused_by_name(content: str) -> None:
    with pytest.raises(DatasetError, match=r"^notes\.ipynb is "):
        extract(content, ".ipynb")


def test_a_word_document_gives_paragraphs_lists_tables_and_notes_but_no_deleted_text() -> None:
    item = "<w:numPr/>"
    cell = "<w:tc>{}</w:tc>"
    row = cell.format(make_paragraph("a") + make_paragraph("b")) + cell.format(make_paragraph("c"))
    body = (
        make_paragraph("Title &amp; more") + "<w:p><w:pPr><w:tabs><w:tab w:val='left' "
        "w:pos='720'/></w:tabs></w:pPr><w:r><w:t>one</w:t><w:tab/>"
        "<w:t xml:space='preserve'>two "
        "</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>three</w:t><w:br/><w:t>four</w:t></w:r></w:ins></w:p>"
        + make_paragraph("first", item)
        + make_paragraph("second", item)
        + f"<w:tbl><w:tr>{row}</w:tr></w:tbl>"
        + make_paragraph("")
        + make_paragraph("End")
    )

    notes = f"<w:footnote>{make_paragraph('A note.')}</w:footnote>"
    assert extract(make_docx(body, footnotes=notes), ".docx") == [
        "Title & more\n\none\ttwo three\nfour\n\nfirst\nsecond\na b\tc\n\nEnd\n\nA note."
    ]


def test_a_word_document_may_keep_its_body_under_another_name() -> None:
    relations = (
        "<Relationships><Relationship "
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
        'officeDocument" Target="/word/document2.xml"/></Relationships>'
    )
    body = f"<w:document {W}><w:body>{make_paragraph('Here')}</w:body></w:document>"
    assert extract(pack({"_rels/.rels": relations, "word/document2.xml": body}), ".docx") == [
        "Here"
    ]


def test_an_opendocument_text_gives_its_paragraphs() -> None:
    content = (
        '<o:document-content xmlns:o="office" xmlns:t="text" xmlns:b="table"><o:body><o:text>'
        "<t:tracked-changes><t:p>gone</t:p></t:tracked-changes>"
        '<t:h>Title</t:h><t:p>one<t:s t:c="2"/>two<t:tab/>three<t:line-break/>four</t:p>'
        "<t:list><t:list-item><t:p>a</t:p></t:list-item><t:list-item><t:p>b</t:p></t:list-item></t:list>"
        "<b:table><b:table-row><b:table-cell><t:p>c</t:p><t:p>c2</t:p></b:table-cell><b:table-cell><t:p>d</t:p></b:table-cell>"
        "</b:table-row></b:table></o:text></o:body></o:document-content>"
    )
    assert extract(pack({"content.xml": content}), ".odt") == [
        "Title\n\none  two\tthree\nfour\n\na\nb\nc c2\td"
    ]


def test_a_book_gives_its_chapters_in_reading_order() -> None:
    chapters = {
        "z.xhtml": '<?xml version="1.0" '
        'encoding="utf-8"?><html><body><h1>First</h1><p>Gr&uuml;n</p></body></html>',
        "a.xhtml": "<html><body><p>Second</p><aside>A note</aside></body></html>",
    }
    assert extract(make_epub(chapters), ".epub") == ["First\n\nGrün\n\nSecond\n\nA note"]


def test_a_locked_book_is_refused_by_name() -> None:
    lock = (
        "<encryption><CipherData><CipherReference "
        'URI="OEBPS/text/a.xhtml"/></CipherData></encryption>'
    )
    with pytest.raises(DatasetError, match=r"notes\.epub is locked by its shop"):
        extract(make_epub({"a.xhtml": "<p>x</p>"}, **{"META-INF__encryption.xml": lock}), ".epub")


def test_a_pdf_gives_its_pages_with_divided_words_joined() -> None:
    assert extract(
        make_pdf(["Hello world,\nthis is a won-\nderful page.", "", "Größe two"]), ".pdf"
    ) == ["Hello world,\nthis is a wonderful page.\n\nGröße two"]


def test_a_pdf_without_text_says_that_it_is_a_scan() -> None:
    with pytest.raises(DatasetError, match=r"notes\.pdf has pages but no text: it is a scan"):
        extract(make_pdf(["", ""]), ".pdf")


def test_a_pdf_with_a_password_is_refused_and_one_with_an_empty_password_is_read() -> None:
    from pypdf import PdfReader, PdfWriter

    for password, is_read in (("", True), ("secret", False)):
        writer = PdfWriter(clone_from=PdfReader(io.BytesIO(make_pdf(["Hello"]))))
        writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
        sink = io.BytesIO()
        writer.write(sink)
        if is_read:
            assert extract(sink.getvalue(), ".pdf") == ["Hello"]
        else:
            with pytest.raises(DatasetError, match=r"notes\.pdf is locked by a password"):
                extract(sink.getvalue(), ".pdf")


MAIL = (
    "From ann@example.org Mon Jan  1 10:00:00 2024\n"
    "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_aus?=\n =?utf-8?q?_Ulm?=\n"
    "From: =?iso-8859-1?q?J=F6rg?= <joerg@example.org>\nTo: all\nContent-Type: text/plain; "
    "charset=iso-8859-1\n"
    "Content-Transfer-Encoding: quoted-printable\n\nLiebe Gr=FC=DFe,\nein lan=\n"
    "ger Satz.\n>From here on.\n>>From there.\n"
    "From me, no separator.\n\nFrom my view neither.\n\n"
)


def test_a_mailbox_gives_each_message_decoded_with_its_subject_and_senders_name() -> None:
    page = base64.b64encode("<p>Да</p><p>нет</p>".encode("koi8-r")).decode()
    second = (
        "From - Tue Jan 02 11:00:00 2024\nSubject: two\nFrom: bob@example.org\nMIME-Version: 1.0\n"
        'Content-Type: multipart/mixed; boundary="XX"\n\n--XX\nContent-Type: text/html; '
        "charset=koi8-r\n"
        f"Content-Transfer-Encoding: base64\n\n{page}\n--XX\n"
        'Content-Type: text/plain; name="a.txt"\nContent-Disposition: '
        "attachment\n\nattached\n--XX--\n"
    )

    assert extract(MAIL + second, ".mbox") == [
        "Subject: Grüße aus Ulm\nFrom: Jörg\n\nLiebe Grüße,\nein langer Satz.\nFrom here "
        "on.\n>From there.\n"
        "From me, no separator.\n\nFrom my view neither.",
        "Subject: two\nFrom: bob@example.org\n\nДа\n\nнет",
    ]


def test_a_broken_message_costs_no_other_message() -> None:
    broken = (
        "From - Tue Jan 02 11:00:00 2024\nSubject: =?x\0y?q?a?=\nContent-Type: text/plain; "
        "charset=\0\n\nbody\n\n"
    )
    first, second, third = extract(MAIL + broken + MAIL, ".mbox")
    assert first == third
    assert second.endswith("body")


def test_plain_text_of_a_message_is_taken_before_its_page() -> None:
    message = (
        'Subject: x\nContent-Type: multipart/alternative; boundary="B"\n\n--B\nContent-Type: '
        "text/plain; "
        "charset=nonsense\n\n"
        "plain\n--B\nContent-Type: text/html\n\n<p>page</p>\n--B--\n"
    )
    assert extract(message, ".eml") == ["Subject: x\n\nplain"]


def test_a_page_that_a_browser_saved_gives_its_text() -> None:
    saved = (
        "From: <Saved by Blink>\nSubject: Notes\nMIME-Version: 1.0\nContent-Type: "
        'multipart/related; boundary="B"\n\n'
        "--B\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n"
        "<p class=3D'a'>Gr=C3=BCn</p>\n--B--\n"
    )
    assert extract(saved, ".mhtml")[0].endswith("Grün")


def test_what_is_no_mailbox_is_refused_by_name() -> None:
    with pytest.raises(DatasetError, match=r"notes\.mbox is no mailbox"):
        extract("Dear diary\n", ".mbox")


@pytest.mark.parametrize("suffix", [".docx", ".odt", ".epub", ".pdf"])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 torn", b"<html>Not found</html>", bytes(5_000)]
)
def test_what_is_something_else_is_refused_by_name(suffix: str, content: bytes) -> None:
    with pytest.raises(DatasetError, match=rf"^notes\{suffix} (is|has|cannot be read)"):
        extract(content, suffix)


@pytest.mark.parametrize("suffix", [".docx", ".epub", ".pdf"])
def test_a_torn_document_is_refused_by_name(suffix: str) -> None:
    whole = {
        ".docx": make_docx(make_paragraph("text") * 50),
        ".epub": make_epub({"a.xhtml": "<p>text</p>" * 50}),
        ".pdf": make_pdf(["text"] * 5),
    }[suffix]
    with pytest.raises(DatasetError, match=rf"^notes\{suffix} "):
        extract(whole[: len(whole) // 3], suffix)


def test_every_suffix_has_a_reader_that_gives_documents_or_refuses() -> None:
    for suffix in DOCUMENT_SUFFIXES:
        try:
            assert all(isinstance(document, str) for document in extract(b"<p>x</p>", suffix))
        except DatasetError as error:
            assert str(error).startswith(f"notes{suffix} ")
