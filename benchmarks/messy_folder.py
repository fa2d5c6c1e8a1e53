"""A folder as people have them: forty kinds of files, good, odd and hostile, to look at with
`lightlm look`.

    .venv/bin/python benchmarks/messy_folder.py FOLDER && .venv/bin/lightlm look FOLDER

Each file says in its name what it is. Nothing of it is real text.
"""

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import zipfile
from pathlib import Path

WORDS = (
    "the river old stone walks under bright morning and finds no reason to stay while rain "
    "falls on wet fields"
).split()
ACCENTED = "Über den Fluß führte eine schöne Brücke, und die Mädchen hörten die Vögel.\n"
RUSSIAN = (
    "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n"
)


def write_prose(seed: int, paragraphs: int = 12) -> str:
    """Return paragraphs of words."""
    draw = random.Random(seed)
    return "\n\n".join(
        " ".join(draw.choice(WORDS) for _ in range(60)).capitalize() + "."
        for _ in range(paragraphs)
    )


def write_texts(folder: Path) -> None:
    """Write plain texts: encodings, line ends, borders, names that hold words of splits."""
    for index, name in enumerate(
        ("dev notes", "driving test", "Val Gardena trip", "train journey", "garden", "recipes")
    ):
        (folder / f"{name}.md").write_text(write_prose(index))

    (folder / "latin1.txt").write_bytes((ACCENTED * 30).encode("latin-1"))
    (folder / "cp1251.txt").write_bytes((RUSSIAN * 30).encode("cp1251"))
    (folder / "utf16.txt").write_bytes(("Ein Text in UTF-16, schön.\n" * 40).encode("utf-16"))
    (folder / "mixed encodings.txt").write_bytes(
        (ACCENTED * 10).encode() + (ACCENTED * 10).encode("cp1252")
    )

    (folder / "old mac.txt").write_bytes(write_prose(10).replace("\n", "\r").encode())
    (folder / "windows.txt").write_bytes(write_prose(11).replace("\n", "\r\n").encode())
    (folder / "stories with borders.txt").write_text(
        "\n<|endoftext|>\n".join(write_prose(20 + i, 1) for i in range(20))
    )
    (folder / "no final newline.txt").write_text("It ends in the middle of")
    (folder / "copy of garden.md").write_text(write_prose(4))
    (folder / "garden, changed a little.md").write_text(
        write_prose(4).replace("stone", "stone,") + "\n\nEdited today."
    )

    (folder / "paper.tex").write_text("\\section{Rivers}\n" + write_prose(12))
    (folder / "manual.rst").write_text("Manual\n======\n\n" + write_prose(13))
    (folder / "empty.txt").touch()


def write_tables(folder: Path) -> None:
    """Write tables: separators, a label before the text, records of chats, bare strings, torn
    lines.
    """
    with (folder / "expenses.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(
            [("item", "price"), *((f"lamp {i}", i) for i in range(20))]
        )
    rows = [{"messages": [{"role": "user", "content": write_prose(i, 1)}]} for i in range(5)]
    (folder / "chat.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"messages": [{"ro'
    )
    (folder / "package.json").write_text('{"name": "thing", "version": "1.0.0"}')


def write_documents(folder: Path) -> None:
    """Write what people keep text in: pages, notebooks, subtitles, mail, office files."""
    (folder / "page.html").write_text(
        f"<html><head><style>p{{}}</style></head><body><p>{write_prose(30)}</p></body></html>"
    )
    cells = [
        {"cell_type": "markdown", "source": [write_prose(31)]},
        {"cell_type": "code", "source": ["x = 1"]},
    ]

    (folder / "analysis.ipynb").write_text(
        json.dumps({"cells": cells, "nbformat": 4, "metadata": {}})
    )
    cues = (
        f"{i}\n00:00:{i:02d},000 --> 00:00:{i:02d},900\n{write_prose(i, 1)[:60]}\n"
        for i in range(1, 40)
    )

    (folder / "film.srt").write_text("\n".join(cues))
    (folder / "mail.mbox").write_text(
        "".join(
            f"From a@b Thu Jan  1 00:00:00 2026\nSubject: {i}\n\n{write_prose(40 + i, 2)}\n\n"
            for i in range(5)
        )
    )

    with zipfile.ZipFile(folder / "letter.docx", "w") as archive:
        body = "".join(
            f"<w:p><w:r><w:t>{part}</w:t></w:r></w:p>" for part in write_prose(50).split("\n\n")
        )
        space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
        archive.writestr(
            "word/document.xml", f"<w:document {space}><w:body>{body}</w:body></w:document>"
        )


def write_packed(folder: Path) -> None:
    """Write packed files and archives, some of which must not be opened in good faith."""
    (folder / "diary.txt.gz").write_bytes(gzip.compress(write_prose(60).encode()))
    (folder / "diary.txt.bz2").write_bytes(bz2.compress(write_prose(61).encode()))
    (folder / "diary.txt.xz").write_bytes(lzma.compress(write_prose(62).encode()))
    (folder / "torn.txt.gz").write_bytes(gzip.compress(write_prose(63, 200).encode())[:2000])

    with zipfile.ZipFile(folder / "more notes.zip", "w") as archive:
        archive.writestr("one.txt", write_prose(64))
        archive.writestr("../outside.txt", "It must stay where it is.")
        archive.writestr("photo.png", b"\x89PNG\r\n\x1a\n")

    with tarfile.open(folder / "backup.tar.gz", "w:gz") as archive:
        content = write_prose(65).encode()
        info = tarfile.TarInfo("two.txt")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("passwd.txt")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        archive.addfile(link)

    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", bytes(300_000_000))


def write_others(folder: Path) -> None:
    """Write what is no text, whatever it is called, and what leads elsewhere."""
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    (folder / "a picture, renamed.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    (folder / "old word file.txt").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000))
    (folder / "report.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (folder / "tool.py").write_text("def answer():\n    return 42\n")
    (folder / "README.md").write_text("About this folder.")
    (folder / ".hidden.md").write_text("hidden")
    (folder / ".git").mkdir(exist_ok=True)
    (folder / ".git" / "config.txt").write_text("hidden, too")

    for name, target in (
        ("passwd.txt", "/etc/passwd"),
        ("environment.txt", "/proc/self/environ"),
        ("again.md", "garden.md"),
    ):
        if not os.path.lexists(folder / name):
            (folder / name).symlink_to(target)

    if not (folder / "pipe.txt").exists():
        os.mkfifo(folder / "pipe.txt")


def main() -> None:
    """Write the folder that is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for write in (write_texts, write_tables, write_documents, write_packed, write_others):
        write(folder)
    print(f"{sum(1 for _ in folder.rglob('*'))} files in {folder}")


if __name__ == "__main__":
    main()
