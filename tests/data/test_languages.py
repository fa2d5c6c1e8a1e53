"""Tests of the languages that a look shows."""

import sys

import pytest

from lightlm.data.languages import UNCLEAR, find_languages
from lightlm.data.quality import measure_quality

ENGLISH = b"The old river walks slowly under the bridge, and nobody hears it. " * 3
GERMAN = "Der alte Fluss geht langsam unter der Brücke, und niemand hört ihn. ".encode()
RUSSIAN = "Старая река медленно течёт под мостом, и никто её не слышит. ".encode()


def test_each_document_counts_by_its_bytes_and_numbers_count_for_no_language() -> None:
    pytest.importorskip("py3langid", reason="pip install 'lightlm[languages]'")
    found = find_languages([ENGLISH, GERMAN, RUSSIAN, b"12 345 678 90 " * 9])
    total = len(ENGLISH) + len(GERMAN) + len(RUSSIAN)
    assert found == pytest.approx(
        {"en": len(ENGLISH) / total, "ru": len(RUSSIAN) / total, "de": len(GERMAN) / total}
    )
    assert next(iter(found)) == "en"
    assert find_languages([b"zqx jwvk qqz zzkj wvxq qzjk " * 2]) == {UNCLEAR: 1.0}
    (line,) = [one for one in measure_quality([ENGLISH, GERMAN]).describe() if "en " in one]
    assert line.startswith("languages: en 7")


def test_without_the_package_a_look_says_how_to_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    assert find_languages([ENGLISH]) is None
    assert any("lightlm[languages]" in line for line in measure_quality([ENGLISH]).describe())
