"""Bytes to text: the encoding is found or refused, nothing is lost in silence, and lines end where
writers end them.
"""

import io
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.data.characters.decoding import (
    UTF_8,
    Encoding,
    RowCounts,
    decode_text,
    find_encoding,
    iterate_lines,
)
from lightlm.errors import DatasetError

GERMAN = "Über den Fluß führte eine schöne Brücke, und die Mädchen hörten die Vögel.\n" * 20
RUSSIAN = (
    "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n"
    * 20
)
FRENCH = (
    "Longtemps, je me suis couché de bonne heure; à peine ma bougie éteinte, mes yeux se "
    "fermaient.\n" * 20
)
POLISH = (
    "Litwo! Ojczyzno moja! ty jesteś jak zdrowie; dziś piękność twą w całej ozdobie widzę i "
    "opisuję.\n" * 20
)
PORTUGUESE = "Olá, não sei o que é isto, mas a canção é bonita e o pão também.\n" * 20
TURKISH = "Bir gün yaşlı adam ağacın altında oturmuş, çocukların oyunlarını izliyordu.\n" * 20
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy, a pak šel domů na oběd.\n" * 5
HEBREW = "על כן יעזב איש את אביו ואת אמו ודבק באשתו\n" * 5
HUNGARIAN = "Őrült tűző nap volt, és az öreg ház előtt fűszálak nőttek a kőúton.\n" * 5
LITHUANIAN = (
    "Senas namas stovėjo gatvės gale, o sodas buvo pilnas piktžolių, kurių niekas nešienavo.\n" * 5
)
UKRAINIAN = "Її старий будинок стояв у кінці вулиці, і ґанок його заріс бур'янами.\n" * 5
KOREAN = "오래된 집은 길의 끝에 서 있었다. 아무도 살지 않았다.\n" * 5
THAI = "บ้านเก่าตั้งอยู่ที่ปลายถนน ไม่มีใครอาศัยอยู่ที่นั่น\n" * 5
QUOTED = "He said “I don’t know” — and that was all…\n" * 5
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n" * 20


def find(data: bytes, named: str | None = None) -> Encoding:
    return find_encoding(partial(io.BytesIO, data), "novel.txt", named)


def read(
    data: bytes, encoding: Encoding = UTF_8, *, longest: int = 1 << 20
) -> tuple[list[str], RowCounts]:
    counts = RowCounts()
    return list(iterate_lines(io.BytesIO(data), encoding, counts, longest=longest)), counts


@pytest.mark.parametrize(
    ("text", "codec", "found"),
    [
        (GERMAN, "utf-8", "utf-8"),
        (GERMAN, "latin-1", "cp1252"),
        (GERMAN, "utf-8-sig", "utf-8"),
        (GERMAN, "utf-16", "utf-16-le"),
        (GERMAN, "utf-16-le", "utf-16-le"),
        (GERMAN, "utf-16-be", "utf-16-be"),
        (GERMAN, "utf-32", "utf-32-le"),
        (FRENCH, "mac_roman", "mac-roman"),
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN, "koi8-r", "koi8-r"),
        (RUSSIAN, "cp866", "cp866"),
        (FRENCH, "cp1252", "cp1252"),
        (PORTUGUESE, "cp1252", "cp1252"),
        (POLISH, "cp1250", "cp1250"),
        (TURKISH, "cp1254", "cp1254"),
        (HEBREW, "cp1255", "cp1255"),
        (JAPANESE, "shift_jis", "shift_jis"),
        (JAPANESE, "euc-jp", "euc_jp"),
        (JAPANESE, "iso2022-jp", "iso2022_jp"),
        (KOREAN, "iso2022-kr", "iso2022_kr"),
        (CZECH, "cp1250", "cp1250"),
        (CZECH, "iso8859-2", "iso8859-2"),
        (HUNGARIAN, "cp1250", "cp1250"),
        (HUNGARIAN, "cp852", "cp852"),
        (LITHUANIAN, "cp1257", "cp1257"),
        (UKRAINIAN, "koi8-u", "koi8-u"),
        (THAI, "cp874", "cp874"),
        (QUOTED, "cp1252", "cp1252"),
        (QUOTED, "mac_roman", "mac-roman"),
        *(
            (text, codec, codec)
            for text in (RUSSIAN, JAPANESE, KOREAN, THAI)
            for codec in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        ),
    ],
)
def test_a_text_is_read_in_the_encoding_that_it_was_written_in(
    text: str, codec: str, found: str
) -> None:
    data = text.encode(codec)
    encoding = find(data)
    assert encoding.name == found
    lines, counts = read(data, encoding)
    assert "".join(lines) == text
    assert counts.replaced_bytes == counts.bad_rows == 0


def test_a_single_stray_byte_leaves_a_text_utf_8_and_is_counted() -> None:
    data = b"plain text\n" * 50 + b"one stray \xe9 byte\n"
    assert find(data) == UTF_8
    lines, counts = read(data)
    assert lines[-1] == "one stray \ufffd byte\n"
    assert (counts.rows, counts.bad_rows, counts.replaced_bytes) == (51, 1, 1)


def test_damage_in_a_text_that_is_utf_8_otherwise_is_counted() -> None:
    data = RUSSIAN.encode() + b"\xff\xfe\xfd\n"
    assert find(data) == UTF_8
    assert read(data)[1].replaced_bytes == 3


def test_a_text_of_two_encodings_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        DatasetError,
        match=r"partly UTF-8 \(20 lines\) and partly not \(20 lines\).*dataset\.encoding",
    ):
        find(GERMAN.encode() + GERMAN.encode("cp1252"))


def test_an_encoding_that_cannot_be_told_is_refused_with_the_option_that_settles_it() -> None:
    arabic = ("كان البيت القديم يقف في نهاية الطريق.\n" * 9).encode("iso8859_6")
    with pytest.raises(DatasetError, match=r"may be .*--set dataset\.encoding="):
        find(arabic)
    assert find(arabic, "iso8859_6") == Encoding("iso8859-6", "named")


def test_an_unknown_encoding_is_refused_by_name() -> None:
    for named in ("klingon", "rot13", "base64", ""):
        with pytest.raises(DatasetError, match=r"no encoding that Python knows"):
            find(b"text", named)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "Microsoft Office"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "PNG"),
        (b"PK\x03\x04" + b"word/document.xml", "zip"),
        (b"some text \0\0\0\0\0 and more of it", "NUL"),
        (b"{\\rtf1\\ansi text}", "RTF"),
    ],
)
def test_binary_content_is_refused_by_name(data: bytes, told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        find(data)


def test_lines_end_at_every_line_end_and_none_is_changed() -> None:
    text = "unix\nwindows\r\nmac\rseparator\u2028paragraph\u2029last"
    lines, counts = read(text.encode())
    assert lines == ["unix\n", "windows\r\n", "mac\r", "separator\u2028", "paragraph\u2029", "last"]
    assert counts.rows == 6


def test_json_lines_end_at_newlines_alone() -> None:
    stream = io.BytesIO('{"text": "a\u2028b"}\r\n{"text": "c"}'.encode())
    lines = list(iterate_lines(stream, UTF_8, RowCounts(), longest=1 << 20, only_newline=True))
    assert lines == ['{"text": "a\u2028b"}\r\n', '{"text": "c"}']


@settings(max_examples=60, deadline=None)
@given(
    st.text(alphabet="ab é\r\n\u2029漢", max_size=80),
    st.integers(1, 9),
    st.sampled_from(["utf-8", "utf-16-le"]),
)
def test_lines_joined_are_the_text_whatever_the_size_of_a_block(
    text: str, block: int, codec: str
) -> None:
    from lightlm.data.characters import decoding

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(decoding, "BLOCK_BYTES", block)
        lines, _ = read(text.encode(codec), Encoding(codec))
    assert "".join(lines) == text.removeprefix("\ufeff")
    assert lines == text.splitlines(keepends=True)


def test_a_long_line_comes_in_parts_and_none_is_lost() -> None:
    text = "é" * 10_000
    lines, _ = read(text.encode(), longest=512)
    assert "".join(lines) == text
    assert max(map(len, lines)) == 512


def test_bytes_beyond_utf_8_are_replaced_one_for_each_maximal_part() -> None:
    counts = RowCounts()
    assert decode_text(b"a\xe4\xb8b\xff", UTF_8, counts) == "a\ufffdb\ufffd"
    assert counts.replaced_bytes == 3
