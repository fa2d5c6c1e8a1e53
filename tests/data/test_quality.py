"""Tests of a text's quality: what a look shows of it, and that masking is asked for and said."""

from collections.abc import Callable
from pathlib import Path

from lightlm.data.look import look_at
from lightlm.data.quality import count_repeated, is_symbols, measure_quality
from lightlm.data.subset import materialize_subset
from lightlm.params import DatasetParams
from tests.data.conftest import make_document

MAIL = "Write to ann@example.org or call +49 30 901820."


def write(path: Path) -> Path:
    """Write 80 paragraphs, every fourth with a mail address and a phone number."""
    documents = [make_document(i) + (f"\n{MAIL}" if i % 4 == 0 else "") for i in range(80)]
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


def test_lines_that_stand_twice_in_a_document_are_repeated() -> None:
    assert count_repeated(b"one\ntwo\n\n\none\n  one\nthree") == 3 + 5
    found = measure_quality([b"refrain\nrefrain\nrefrain", b"once\nupon"])
    assert (found.documents, found.repetitive_documents) == (2, 1)
    assert found.repeated_share == 14 / 32


def test_documents_of_symbols_or_numbers_are_told_from_words() -> None:
    assert is_symbols(b"12 13 14 | 15 16 | seven")
    assert is_symbols(b"# # # one two three")
    assert not is_symbols("Es war einmal ein Fräulein in 1999.".encode())


def test_a_look_counts_personal_data_and_says_how_to_mask_it(
    tmp_path: Path, dataset: Callable[..., DatasetParams]
) -> None:
    found = look_at(dataset(write(tmp_path / "letters.txt")))
    kinds = found.quality.personal
    assert kinds.keys() == {"mail address", "phone number"}
    assert kinds["mail address"] == kinds["phone number"] > 10
    assert any("--set dataset.mask=true" in line for line in found.quality.describe())


def test_text_is_masked_only_where_it_is_asked_for_and_the_record_says_it(
    home: Path, tmp_path: Path, dataset: Callable[..., DatasetParams]
) -> None:
    path = write(tmp_path / "letters.txt")
    plain = materialize_subset(home, dataset(path))
    masked = materialize_subset(home, dataset(path, mask=True))
    assert plain.fingerprint != masked.fingerprint
    assert plain.record.masked == {}
    assert masked.record.masked == {"mail address": 20, "phone number": 20}
    assert "masked: 20 mail addresses, 20 phone numbers" in masked.record.summary_lines()

    for split in ("train", "validation"):
        assert b"ann@example.org" not in masked.text_path(split).read_bytes()
    both = masked.text_path("train").read_bytes() + masked.text_path("validation").read_bytes()
    assert both.count(b"Write to <mail address> or call <phone number>.") == 20
    assert b"ann@example.org" in plain.text_path("train").read_bytes()
