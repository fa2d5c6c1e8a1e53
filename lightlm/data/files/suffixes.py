"""What a file's name says of its kind: text, source code, a table, a document; and how it is
packed.
"""

from lightlm.data.formats.documents import DOCUMENT_SUFFIXES as DOCUMENT_SUFFIXES
from lightlm.data.formats.packing import PACKED_SUFFIXES as PACKED_SUFFIXES

TEXT_SUFFIXES = (
    ".txt", ".md", ".text", ".markdown", ".mdx", ".rst", ".tex", ".org", ".adoc", ".asciidoc",
    ".asc", ".log",
)  # fmt: skip
"""Suffixes of plain text, also with marks in it, read as it stands."""

CODE_SUFFIXES = tuple(
    ".py .pyi .js .mjs .jsx .ts .tsx .c .h .cc .cpp .cxx .hpp .hh .java .kt .kts .scala .go .rs "
    ".rb .php .pl .pm .lua .r .jl .swift .m .mm .cs .fs .vb .hs .ml .mli .clj .ex .exs .erl .elm "
    ".dart .sh .bash .zsh .fish .ps1 .bat .sql .css .scss .vue .svelte .asm .s .f90 .f .pas .lisp "
    ".el .scm .vhd .v .zig .nim .cr .cmake .toml .yaml .yml .ini .cfg .xml .svg .tf .proto "
    ".graphql".split()
)
"""Suffixes of source code, which is plain text; for a person who names it."""

TABLE_KINDS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".psv": "csv",
}
UNREAD_SUFFIXES = {
    ".arrow": "convert it to parquet",
    ".feather": "convert it to parquet",
    ".xlsx": "save it as csv",
    ".xls": "save it as csv",
    ".ods": "save it as csv",
    ".doc": "save it as docx",
    ".rtf": "save it as docx or txt",
    ".pages": "save it as docx or txt",
    ".mobi": "convert it to epub",
    ".azw3": "convert it to epub",
    ".djvu": "convert it to txt",
    ".pptx": "save it as txt or PDF",
}
"""Formats that hold text and are not read, and what to do with them."""

SUFFIXES = (*TABLE_KINDS, *TEXT_SUFFIXES, *sorted(DOCUMENT_SUFFIXES))
