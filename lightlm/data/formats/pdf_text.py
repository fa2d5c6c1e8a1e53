"""Text of .pdf by pypdf, page by page: pure Python, so that a hostile file ends in an error and not
in its own code.
"""

import io
import re
from collections.abc import Iterator

from lightlm.errors import DatasetError

LIGATURES = str.maketrans(
    {
        "\ufb00": "ff",
        "\ufb01": "fi",
        "\ufb02": "fl",
        "\ufb03": "ffi",
        "\ufb04": "ffl",
        "\ufb05": "st",
        "\ufb06": "st",
    }
)


def iterate_pdf(content: bytes) -> Iterator[str | None]:
    """Yield the text of a PDF page by page; None for its end."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    if b"%PDF-" not in content[:1024]:
        raise DatasetError("is no PDF: it does not begin with %PDF-; download it again")

    try:
        reader = PdfReader(io.BytesIO(content), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise DatasetError(
                "is locked by a password; save it without one: qpdf --decrypt OLD NEW"
            )
        has_text = False
        for page in reader.pages:
            text = join_lines(page.extract_text())
            if text:
                yield "\n\n" + text if has_text else text
                has_text = True
        if not has_text and len(reader.pages):
            raise DatasetError(
                "has pages but no text: it is a scan; recognize its text first: ocrmypdf OLD NEW"
            )
    except PyPdfError as error:
        raise DatasetError(
            f"cannot be read ({str(error).partition(chr(10))[0]}); download or write it again"
        ) from None

    yield None


def join_lines(page: str) -> str:
    """Return a page's text with divided words joined, ligatures as letters, and no blanks at line
    ends.
    """
    text = re.sub(r"[ \t]+\n", "\n", page.translate(LIGATURES)).strip()
    return re.sub(r"(?<=[a-zß-öø-ÿа-яё])[-\u2010\u00ad]\n(?=[a-zß-öø-ÿа-яё])", "", text)
