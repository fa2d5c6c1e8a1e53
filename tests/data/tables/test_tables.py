"""Tests of tables: separators, headers, columns, JSON layouts, chats, parquet types, and files made
to do harm.
"""

import csv
import io
import itertools
import json
import random
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.data.characters.decoding import RowCounts
from lightlm.data.tables import columns, json_rows
from lightlm.data.tables.tables import TableShape, count_rows, inspect_table, read_rows
from lightlm.errors import DatasetError

WORDS = (
    "goats boat river mill evening window lamp uncle salt stone bread letter summer winter "
    "road home"
).split()


def sentence(seed: int, separator: str = " ") -> str:
    words = random.Random(seed).choices(WORDS, k=8)
    return (" ".join(words[:4]) + separator + " ".join(words[4:])).capitalize() + "."


TEXTS = [sentence(seed) for seed in range(150)]


def opener(data: bytes | str) -> Callable[[], BinaryIO]:
    raw = data if isinstance(data, bytes) else data.encode()
    return lambda: io.BytesIO(raw)


def read(
    data: bytes | str, suffix: str = ".csv", column: str | None = None, encoding: str | None = None
) -> tuple[list[str], TableShape, RowCounts]:
    shape = inspect_table(opener(data), suffix, f"data{suffix}", column=column, encoding=encoding)
    counts = RowCounts()
    return list(read_rows(opener(data), shape, counts)), shape, counts


def texts_of(data: bytes | str, suffix: str = ".csv", column: str | None = None) -> list[str]:
    return read(data, suffix, column)[0]


def lines_of(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def refusal(data: bytes | str, suffix: str = ".csv", column: str | None = None) -> str:
    with pytest.raises(DatasetError) as raised:
        read(data, suffix, column)
    return str(raised.value)


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


# separators of csv files


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_each_separator_is_found_and_commas_of_the_text_stay(separator: str, suffix: str) -> None:
    texts = [sentence(seed, ", " if separator != "," else " ") for seed in range(150)]
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator)
    writer.writerows(
        [("id", "stars", "text"), *((seed, seed % 5, text) for seed, text in enumerate(texts))]
    )
    found, shape, counts = read(file.getvalue(), suffix)
    assert found == texts
    assert shape.columns == ("id", "stars", "text")
    assert counts == RowCounts(rows=150)


def test_semicolons_separate_though_each_text_has_just_as_many_commas() -> None:
    rows = [
        f"{seed};{seed % 5};{sentence(seed, ', ')[:-1]}, {sentence(seed)}" for seed in range(150)
    ]
    found, shape, _ = read("id;stars;text\n" + "\n".join(rows))
    assert found == [row.split(";")[2] for row in rows]
    assert any("semicolon" in note for note in shape.notes)


def test_a_sep_line_decides_and_is_no_row() -> None:
    assert (
        texts_of("sep=;\r\nid;text\r\n" + "".join(f"{i};{t}\r\n" for i, t in enumerate(TEXTS)))
        == TEXTS
    )


def test_one_column_without_a_separator_is_read_whole() -> None:
    texts = [sentence(seed, ", " if seed % 3 else " ") for seed in range(150)]
    assert texts_of("text\n" + "\n".join(texts)) == texts
    quoted = "text\n" + "".join(f'"{text}\nsecond line"\n' for text in texts)
    assert texts_of(quoted) == [f"{text}\nsecond line" for text in texts]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_and_a_mark_are_read(end: str) -> None:
    data = "\ufeffid,text" + end + "".join(f"{i},{text}{end}" for i, text in enumerate(TEXTS))
    found, shape, _ = read(data)
    assert found == TEXTS
    assert shape.columns == ("id", "text")


def test_sentences_with_commas_are_no_columns() -> None:
    texts = [sentence(seed, ", ") for seed in range(150)]
    assert texts_of("\n".join(texts)) == texts


@pytest.mark.parametrize("above", ["My export of May\n\n", "# exported by a tool\n# twice\n"])
def test_a_title_above_the_header_is_no_row(above: str) -> None:
    found, shape, _ = read(
        above + "id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(TEXTS))
    )
    assert found == TEXTS
    assert any("The table begins at line 3, below" in note for note in shape.notes)


def test_line_ends_inside_of_texts_stay() -> None:
    texts = [f"{text}\u2028more \x85 and\x0bmore\r{text}" for text in TEXTS]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([("id", "text"), *enumerate(texts)])
    assert texts_of(file.getvalue()) == texts


def test_latin_text_is_decoded_not_replaced() -> None:
    data = (
        "id,text\n" + "".join(f"{i},Fräulein Müller grüßt {t}\n" for i, t in enumerate(TEXTS))
    ).encode("latin-1")
    found, shape, counts = read(data)
    assert found[0].startswith("Fräulein Müller grüßt ")
    assert shape.encoding.name == "cp1252"
    assert counts.replaced_bytes == 0


def test_stray_bytes_are_counted_with_their_row() -> None:
    data = (
        "id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(TEXTS))
    ).encode() + b"151,caf\xe9 au lait\n"
    found, _, counts = read(data)
    assert found[-1] == "caf\ufffd au lait"
    assert (counts.replaced_bytes, counts.bad_rows) == (1, 1)


# quotes of csv files


def test_quotes_that_are_not_doubled_inside_of_a_field_are_text() -> None:
    rows = [f'{i},"He said "{text}" and left"' for i, text in enumerate(TEXTS)]
    assert texts_of("id,text\n" + "\n".join(rows)) == [
        f'He said "{text}" and left' for text in TEXTS
    ]


def test_quotes_in_a_table_without_quoting_are_text() -> None:
    rows = [f'{i}\t"{text}" he said' for i, text in enumerate(TEXTS)]
    found, shape, _ = read("id\ttext\n" + "\n".join(rows), ".tsv")
    assert found == [f'"{text}" he said' for text in TEXTS]
    assert "Quotes are text, they enclose no fields." in shape.notes


def test_quotes_behind_a_backslash_are_read() -> None:
    rows = [f'{i},"He said \\"{text}\\", twice"' for i, text in enumerate(TEXTS)]
    assert texts_of("id,text\n" + "\n".join(rows)) == [f'He said "{text}", twice' for text in TEXTS]


def test_quotes_behind_a_blank_enclose_a_field() -> None:
    rows = [f'{i}, "{text}, twice"' for i, text in enumerate(TEXTS)]
    assert texts_of("id, text\n" + "\n".join(rows)) == [f"{text}, twice" for text in TEXTS]


@pytest.mark.parametrize("place", [7, 149, 5000])
def test_a_quote_that_is_not_closed_is_refused_with_its_line(place: int) -> None:
    rows = [f'{i},"{sentence(i)}",x' for i in range(6000)]
    rows[place] = f'{place},"{sentence(place)},x'
    assert f"line {place + 2}: a quote" in refusal("id,text,mark\n" + "\n".join(rows))
    plain = [row.replace('"', "") for row in rows]
    plain[place] = rows[place]
    assert f"line {place + 2}: a quote" in refusal("id,text,mark\n" + "\n".join(plain))


# fields of csv files


def test_unquoted_commas_of_the_last_text_are_joined_and_noted() -> None:
    texts = [sentence(seed, ", " if seed % 3 else " ") for seed in range(150)]
    found, shape, _ = read("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    assert found == texts
    assert any("more fields" in note for note in shape.notes)


def test_unquoted_commas_of_a_text_before_a_label_are_joined() -> None:
    texts = [sentence(seed, ", " if seed % 3 else " ") for seed in range(150)]
    data = "text,label\n" + "".join(
        f"{text},{'good' if i % 2 else 'bad'}\n" for i, text in enumerate(texts)
    )
    assert texts_of(data) == texts


def test_a_surplus_that_may_belong_to_another_column_is_refused_with_its_line() -> None:
    rows = [f"{sentence(i)},{sentence(i + 500)},{sentence(i + 900)}" for i in range(150)]
    rows[20] += ", and more"
    assert "line 22 has 4 fields, wanted 3" in refusal(
        "title,text,answer\n" + "\n".join(rows), column="text"
    )


def test_a_link_with_a_comma_that_shifts_the_text_is_refused() -> None:
    rows = [f"https://example.org/{i}?a=1,2,{i}.5,{text}" for i, text in enumerate(TEXTS)]
    assert "must stand in quotes" in refusal("link,score,text\n" + "\n".join(rows))


def test_fields_of_different_numbers_without_a_header_are_not_taken_for_one_text() -> None:
    rows = [
        f"{i},good,{sentence(i, ', ') if i % 3 else sentence(i)}" + ",and" * (i % 4)
        for i in range(150)
    ]
    refusal("\n".join(rows))


def test_unquoted_commas_without_a_header_are_joined_where_other_columns_are_typed() -> None:
    texts = [sentence(i, ", ") if i % 3 == 1 else sentence(i) for i in range(150)]
    assert texts_of("".join(f"{i},good,{text}\n" for i, text in enumerate(texts))) == texts


def test_empty_surplus_fields_are_dropped() -> None:
    assert (
        texts_of("id,text\n" + "".join(f"{i},{text},,\n" for i, text in enumerate(TEXTS))) == TEXTS
    )


def test_rows_that_lack_their_text_are_counted_and_many_are_refused() -> None:
    rows = [f"{i},x,{text}" for i, text in enumerate(TEXTS)]
    rows[140] = "140"
    found, _, counts = read("id,mark,text\n" + "\n".join(rows))
    assert found[140] == ""
    assert (counts.rows, counts.empty, counts.bad_rows) == (150, 1, 1)
    rows[30] = rows[60] = rows[90] = "torn text"
    assert "line 32 has 1 of 3 fields" in refusal("id,mark,text\n" + "\n".join(rows))


def test_empty_and_repeated_header_names_get_names_of_their_own() -> None:
    data = ",text,text\n" + "".join(f"{i},{text},{i}\n" for i, text in enumerate(TEXTS))
    found, shape, _ = read(data)
    assert shape.columns == ("0", "text", "text_2")
    assert found == TEXTS
    assert texts_of(data, column="text_2") == [str(i) for i in range(150)]


def test_a_table_without_a_header_keeps_its_first_row_and_numbers_its_columns() -> None:
    data = "".join(f"{i},{text},{i % 5}\n" for i, text in enumerate(TEXTS))
    found, shape, _ = read(data)
    assert found == TEXTS
    assert shape.columns == ("0", "1", "2")
    assert any("No header" in note for note in shape.notes)
    assert texts_of(data, column="1") == TEXTS
    labels = "".join(f"{text}\t{'good' if i % 2 else 'bad'}\n" for i, text in enumerate(TEXTS))
    assert texts_of(labels, ".tsv") == TEXTS


def test_names_of_columns_may_be_numbers() -> None:
    data = "2018,1\n" + "".join(f"x{i},{text}\n" for i, text in enumerate(TEXTS))
    assert texts_of(data, column="1")[-1] == TEXTS[-1]


def test_a_row_longer_than_memory_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightlm.data.tables.csv_rows.LONGEST_ROW_BYTES", 3_000_000)
    assert "longer than" in refusal("id,text\n1," + "a" * 4_000_000)
    assert "line 2: a quote" in refusal('id,text\n1,"' + "a\n" * 2_000_000)
    assert "no column of text" in refusal("id,text\n" + "," * 2_000_000)


def test_a_text_of_very_many_lines_is_one_row() -> None:
    text = "".join(f"{sentence(i)}\n" for i in range(3000))
    file = io.StringIO()
    csv.writer(file).writerows(
        [("title", "text"), *((f"Book {i}", f"{i} {text}") for i in range(6))]
    )
    assert texts_of(file.getvalue()) == [f"{i} {text}" for i in range(6)]


def test_a_table_of_very_many_columns_is_looked_at_in_a_moment() -> None:
    start = time.process_time()
    row = ",".join(f"{i}.5" for i in range(20_000))
    refusal(f"{','.join(f'g{i}' for i in range(20_000))}\n" + f"{row}\n" * 100)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("data", ["", "\n\n", "text\n", "id,text\n", "sep=;\n"])
def test_tables_without_rows_are_refused(data: str) -> None:
    assert "no rows" in refusal(data)


# the column


@pytest.mark.parametrize("first", ["10", "42", "", "2019-01-01", "https://example.org"])
def test_the_first_value_does_not_decide(first: str) -> None:
    rows = [f"{text},{'good' if i % 2 else 'bad'}" for i, text in enumerate([first, *TEXTS])]
    found, shape, _ = read("review,label\n" + "\n".join(rows))
    assert shape.column == "review"
    assert found == [first, *TEXTS]


def test_ids_labels_dates_links_and_numbers_are_no_text() -> None:
    rows = [
        {
            "uid": f"a{i:07x}", "when": f"2020-01-{i % 28 + 1:02} "
                                        "12:00:00", "link": f"https://example.org/{i}",
            "price": f"$ {i}.50", "mood": ["very good", "so so"][i % 2], "said": text, "file": f"/data/{i}.wav",
        }
        for i, text in enumerate(TEXTS)
    ]  # fmt: skip
    assert read(lines_of(rows), ".jsonl")[1].column == "said"


def test_of_several_texts_the_far_longer_one_or_a_usual_name_is_taken() -> None:
    long = [{"heading": text, "passage_en": " ".join([text] * 9)} for text in TEXTS]
    assert read(lines_of(long), ".jsonl")[1].column == "passage_en"
    usual = [{"one": text, "text": text[::-1]} for text in TEXTS]
    assert read(lines_of(usual), ".jsonl")[1].column == "text"


def test_equal_texts_are_refused_with_examples_and_a_command_that_leads_on() -> None:
    data = lines_of([{"left": text, "right": text[::-1], "n": 1} for text in TEXTS])
    message = refusal(data, ".jsonl")
    assert f'left: "{TEXTS[0][:37]}' in message
    assert "choose one: --text-column left or --text-column right" in message
    assert texts_of(data, ".jsonl", "right") == [text[::-1] for text in TEXTS]


def test_a_wrong_name_is_refused_with_the_nearest() -> None:
    assert "did you mean --text-column review?" in refusal(
        "id,review\n1,Some words here\n", column="reviews"
    )
    assert "did you mean --text-column 'my text'?" in refusal(
        "id,my text\n1,Some words here\n", column="My Text"
    )


def test_a_column_whose_first_rows_are_all_empty_is_read_on() -> None:
    rows = [{"id": i, "text": None} for i in range(300)] + [
        {"id": i, "text": text} for i, text in enumerate(TEXTS)
    ]
    found, _, counts = read(lines_of(rows), ".jsonl")
    assert found[300:] == TEXTS
    assert (counts.rows, counts.empty) == (450, 300)


def test_single_words_are_taken_where_just_one_column_has_them() -> None:
    names = [
        f"{i},{first}{second}" for i, (first, second) in enumerate(itertools.product(WORDS, WORDS))
    ]
    assert read("id,name\n" + "\n".join(names))[1].column == "name"


def test_tiny_tables_are_read() -> None:
    assert texts_of("text\nx\n") == ["x"]
    assert texts_of("title,content,n\nt,c,1\n") == ["c"]
    assert texts_of('{"text": "one"}\n', ".jsonl") == ["one"]


# json


LAYOUTS: dict[str, Callable[[list[Any]], str]] = {
    "lines": lines_of,
    "array": json.dumps,
    "indented": lambda rows: json.dumps(rows, indent=2),
    "key": lambda rows: json.dumps(
        {"version": 1, "info": ["a", "b"], "data": rows, "end": {"x": 1}}
    ),
    "train": lambda rows: json.dumps({"train": rows}, indent=1),
    "members": lambda rows: json.dumps({f"id{i}": row for i, row in enumerate(rows)}),
    "one_after_another": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_every_layout_of_json_gives_the_same_rows(layout: str, suffix: str) -> None:
    data = LAYOUTS[layout](
        [{"id": i, "tags": ["a b", "c d"], "text": text} for i, text in enumerate(TEXTS)]
    )
    found, _, counts = read(data, suffix)
    assert found == TEXTS
    assert counts == RowCounts(rows=150)


@pytest.mark.parametrize("layout", ["lines", "array", "key"])
def test_strings_are_rows_too(layout: str) -> None:
    assert texts_of(LAYOUTS[layout](TEXTS), ".json") == TEXTS


def test_columns_as_pandas_writes_them_are_read() -> None:
    data = json.dumps(
        {
            "label": {str(i): i % 2 for i in range(150)},
            "text": {str(i): t for i, t in enumerate(TEXTS)},
        }
    )
    assert texts_of(data, ".json") == TEXTS
    assert texts_of(json.dumps({"id": list(range(150)), "text": TEXTS}), ".json") == TEXTS


def test_lists_as_rows_have_numbered_columns() -> None:
    rows = [[i, text, "x"] for i, text in enumerate(TEXTS)]
    assert texts_of(lines_of(rows), ".jsonl") == TEXTS
    assert (
        texts_of(json.dumps({"columns": ["id", "text", "mark"], "data": rows}), ".json", "1")
        == TEXTS
    )
    sentences = [[text] * (2 + i % 3) for i, text in enumerate(TEXTS)]
    assert texts_of(lines_of(sentences), ".jsonl") == ["\n".join(row) for row in sentences]


def test_one_object_is_one_document() -> None:
    assert texts_of(json.dumps({"title": "A", "text": TEXTS[0], "tags": ["x", "y"]}), ".json") == [
        TEXTS[0]
    ]


def test_a_torn_end_is_left_out_and_counted() -> None:
    rows = [{"text": text} for text in TEXTS]
    for data in (lines_of(rows)[:-5], json.dumps(rows)[:-5], json.dumps({"data": rows})[:-6]):
        found, shape, counts = read(data, ".json")
        assert found == TEXTS[:-1]
        assert counts.bad_rows == 1
        assert any("torn" in note for note in shape.notes)


def test_an_end_inside_of_the_first_row_is_refused() -> None:
    assert "ends inside of its first row" in refusal('[{"text": "Once upon a', ".json")
    assert "line 1 is not JSON" in refusal('{"text": "Once upon a', ".jsonl")


def test_a_few_broken_lines_are_counted_and_more_are_refused_with_the_first() -> None:
    lines = lines_of([{"text": text} for text in TEXTS]).splitlines(keepends=True)
    lines[100] = '{"text": "cut\n'
    found, _, counts = read("".join(lines), ".jsonl")
    assert (len(found), counts.rows, counts.bad_rows) == (149, 149, 1)
    lines[110] = lines[120] = "not json\n"
    assert "line 101 is not JSON" in refusal("".join(lines), ".jsonl")


def test_nan_infinity_and_u2028_inside_of_strings_are_read() -> None:
    data = '{"text": "a\u2028b c", "x": NaN}\n{"text": "d e", "x": -Infinity}\n'
    assert texts_of(data, ".jsonl") == ["a\u2028b c", "d e"]


def test_lone_surrogates_are_replaced_and_counted() -> None:
    found, _, counts = read('{"text": "a \\ud800 b"}\n{"text": "\\ud83d\\ude00"}\n', ".jsonl")
    assert found == ["a \ufffd b", "\U0001f600"]
    assert counts.replaced_bytes == 1


@pytest.mark.parametrize(
    "data",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "[1, 2, 3]",
        "3",
        "{}",
        "[]",
        "null",
        "not json",
        '{"a": [',
        "[{]",
        "[[[]]]",
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_without_rows_of_text_is_refused(data: str, suffix: str) -> None:
    refusal(data, suffix)


def test_shapes_on_a_map_are_refused() -> None:
    feature = {
        "type": "Feature",
        "properties": {"name": "A"},
        "geometry": {"type": "Point", "coordinates": [1, 2]},
    }
    refusal(json.dumps({"type": "FeatureCollection", "features": [feature] * 50}), ".json")


def test_an_array_is_read_in_bounded_memory() -> None:
    import tracemalloc

    data = (
        "[" + ",".join(json.dumps({"text": f"{i} goats " * 1000}) for i in range(3000)) + "]"
    ).encode()
    shape = inspect_table(opener(data), ".json", "data.json")
    tracemalloc.start()
    length = sum(map(len, read_rows(opener(data), shape, RowCounts())))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length > 30_000_000
    assert peak < 12_000_000


def test_a_value_longer_than_memory_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightlm.data.tables.json_stream.LONGEST_ROW_BYTES", 1_000_000)
    assert "value of" in refusal('[{"text": "' + "a" * 5_000_000, ".json")


def test_an_array_on_one_line_may_be_longer_than_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightlm.data.tables.csv_rows.LONGEST_ROW_BYTES", 2_000_000)
    rows = [{"text": f"{i} goats " * 1000} for i in range(400)]
    assert texts_of(json.dumps(rows), ".json")[-1] == rows[-1]["text"]
    assert texts_of(json.dumps({"data": rows}), ".json")[-1] == rows[-1]["text"]
    assert texts_of(json.dumps(rows), ".jsonl")[-1] == rows[-1]["text"]


def test_lines_are_counted_without_being_parsed() -> None:
    data = lines_of([{"text": text} for text in TEXTS]) + "\n\n"
    assert count_rows(opener(data), inspect_table(opener(data), ".jsonl", "data.jsonl")) == 150


@given(data=st.text("a{ \n\r\t", max_size=40), size=st.integers(1, 50))
def test_lines_are_counted_the_same_in_blocks_of_any_size(data: str, size: int) -> None:
    wanted = sum(not line.isspace() for line in io.BytesIO(data.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "COUNTED_BYTES", size)
        assert json_rows.count_lines(io.BytesIO(data.encode())) == wanted


# objects and chats


def test_objects_are_never_written_as_python_writes_them() -> None:
    rows = [{"text": text if i % 4 else {"a": text}} for i, text in enumerate(TEXTS)]
    message = refusal(lines_of(rows), ".jsonl")
    assert "--text-column text.a or --text-column text (leaves these rows out)" in message
    found, _, counts = read(lines_of(rows), ".jsonl", "text")
    assert found == [text if i % 4 else "" for i, text in enumerate(TEXTS)]
    assert counts.bad_rows == 38
    assert texts_of(lines_of(rows), ".jsonl", "text.a")[0] == TEXTS[0]


def test_objects_beyond_the_sample_are_refused_where_they_are_many() -> None:
    rows = [{"text": text} for text in TEXTS * 2] + [{"text": {"a": 1}}] * 20
    assert "line 301 holds an object" in refusal(lines_of(rows), ".jsonl")


def test_texts_inside_of_objects_are_offered_and_chosen_by_a_dotted_name() -> None:
    data = lines_of(
        [{"id": i, "message": {"text": text, "from": "x"}} for i, text in enumerate(TEXTS)]
    )
    assert "--text-column message.text" in refusal(data, ".jsonl")
    assert texts_of(data, ".jsonl", "message.text") == TEXTS


def test_rows_without_the_column_give_another_usual_one() -> None:
    rows = [{"text": text} if i % 9 else {"content": text} for i, text in enumerate(TEXTS)]
    found, shape, _ = read(lines_of(rows), ".jsonl")
    assert found == TEXTS
    assert "Rows without text give the text of content." in shape.notes


CHATS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "messages": lambda q, a: {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
    "parts": lambda q, a: {"messages": [
        {"role": "user", "content": [{"type": "text", "text": q}, {"type": "image_url", "image_url": "x"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, {"role": "assistant", "content": a}]},
    "sharegpt": lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
    "alpaca": lambda q, a: {"instruction": q, "input": "", "output": a},
    "prompt": lambda q, a: {"prompt": q, "completion": a},
    "question": lambda q, a: {"question": q, "answer": a, "source": "web"},
}  # fmt: skip


@pytest.mark.parametrize("kind", CHATS)
def test_chat_records_become_one_document_each_by_a_plain_template(kind: str) -> None:
    rows = [CHATS[kind](TEXTS[i], TEXTS[-1 - i]) for i in range(150)]
    found, shape, _ = read(lines_of(rows), ".jsonl")
    assert found[3] == f"User: {TEXTS[3]}\n\nAssistant: {TEXTS[-4]}"
    assert shape.template in ("chat", "pair")
    assert "'User: ...' and 'Assistant: ...'" in " ".join(shape.notes)
    if shape.template == "chat":
        assert texts_of(lines_of(rows), ".jsonl", shape.column) == found
    if kind != "parts":
        assert texts_of(parquet(pa.Table.from_pylist(rows)), ".parquet") == found


def test_chat_records_of_several_kinds_are_flattened_row_by_row() -> None:
    rows = [
        list(CHATS.values())[i % 2 * 2](text, text) if i % 5 else {"text": text}
        for i, text in enumerate(TEXTS)
    ]
    found = texts_of(lines_of(rows), ".jsonl", "messages")
    assert found == [
        f"User: {text}\n\nAssistant: {text}" if i % 5 else text for i, text in enumerate(TEXTS)
    ]


def test_a_column_of_a_task_can_be_taken_alone() -> None:
    data = lines_of([{"instruction": text, "output": text[::-1]} for text in TEXTS])
    assert texts_of(data, ".jsonl", "output") == [text[::-1] for text in TEXTS]


# parquet


def column_of(kind: str) -> pa.Array:
    arrays = {
        "string": lambda: pa.array(TEXTS),
        "large": lambda: pa.array(TEXTS, pa.large_string()),
        "view": lambda: pa.array(TEXTS, pa.string_view()),
        "dictionary": lambda: pa.array(TEXTS).dictionary_encode(),
        "binary": lambda: pa.array([text.encode() for text in TEXTS], pa.binary()),
        "large_binary": lambda: pa.array([text.encode() for text in TEXTS], pa.large_binary()),
        "list": lambda: pa.array([text.split(maxsplit=3) for text in TEXTS]),
    }
    return arrays[kind]()


@pytest.mark.parametrize(
    "kind", ["string", "large", "view", "dictionary", "binary", "large_binary"]
)
@pytest.mark.parametrize("column", ["text", "a.b"])
def test_every_type_of_text_in_parquet_is_read(kind: str, column: str) -> None:
    data = parquet(pa.table({"id": range(150), column: column_of(kind)}))
    found, shape, counts = read(data, ".parquet")
    assert found == TEXTS
    assert shape.column == column
    assert counts == RowCounts(rows=150)
    assert count_rows(opener(data), shape) == 150


def test_lists_of_strings_are_lines_and_structs_give_their_children() -> None:
    lists = parquet(pa.table({"text": pa.array([[text, "and more"] for text in TEXTS])}))
    assert texts_of(lists, ".parquet") == [f"{text}\nand more" for text in TEXTS]
    structs = parquet(pa.table({"text": pa.array([{"a": text, "n": 1} for text in TEXTS])}))
    assert "--text-column text.a" in refusal(structs, ".parquet")
    assert texts_of(structs, ".parquet", "text.a") == TEXTS


def test_bytes_in_parquet_that_are_no_utf8_are_counted() -> None:
    values = [text.encode() for text in TEXTS]
    values[5] = b"caf\xe9 au lait"
    for kind in (pa.binary(), pa.string()):
        array = pa.array(values, pa.binary()).view(kind)
        found, _, counts = read(parquet(pa.table({"text": array})), ".parquet")
        assert found[5] == "caf\ufffd au lait"
        assert (counts.replaced_bytes, counts.bad_rows) == (1, 1)


def test_pictures_in_parquet_are_no_text() -> None:
    pictures = pa.array(
        [
            {"bytes": b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "path": f"{i}.png"}
            for i in range(100)
        ]
    )
    refusal(parquet(pa.table({"image": pictures, "label": range(100)})), ".parquet")


def test_a_caption_is_taken_and_not_the_bytes_of_its_picture() -> None:
    pictures = pa.array(
        [b"\x89PNG\r\n\x1a\n" + random.Random(i).randbytes(5000) for i in range(150)]
    )
    data = parquet(pa.table({"image": pictures, "caption": TEXTS}))
    assert texts_of(data, ".parquet") == TEXTS
    large = pa.array([random.Random(i).randbytes(400_000) for i in range(5)])
    assert (
        texts_of(parquet(pa.table({"image": large, "caption": TEXTS[:5]})), ".parquet") == TEXTS[:5]
    )

    assert "no column of text (columns: image)" in refusal(
        parquet(pa.table({"image": large})), ".parquet"
    )


def test_parquet_that_cannot_be_read_is_refused() -> None:
    assert "not a readable parquet file" in refusal(b"PAR1 and nothing else", ".parquet")
    data = parquet(pa.table({"text": TEXTS * 50}))
    refusal(data[:100] + b"\xff" * 200 + data[300:], ".parquet")
    assert "no rows" in refusal(parquet(pa.table({"text": pa.array([], pa.string())})), ".parquet")


# properties


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(FIELD.map(lambda text: f"so {text} on"), min_size=2, max_size=30),
    separator=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_the_csv_module_writes_is_read_back(
    texts: list[str], separator: str, quoting: Any, end: str
) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerow(["id", "text", "stars"])
    writer.writerows((index, text, 5) for index, text in enumerate(texts))
    assert texts_of(file.getvalue(), column="text") == texts


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300) | st.text('",;\n\r\t|ab1 \\{}[]:', max_size=80).map(str.encode),
       suffix=st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet"]), named=st.booleans())  # fmt: skip
def test_hostile_bytes_are_read_or_refused_and_nothing_else(
    data: bytes, suffix: str, named: bool
) -> None:
    try:
        shape = inspect_table(opener(data), suffix, "data", column="0" if named else None)
        rows = list(read_rows(opener(data), shape, RowCounts()))
        assert all(isinstance(row, str) for row in rows)
        assert isinstance(shape.column, str)
        "".join(rows).encode()
    except DatasetError as error:
        assert str(error)


def test_the_sample_is_large_enough_to_tell_labels() -> None:
    assert columns.SAMPLE_ROWS >= 100
