"""What a file's name says of its kind: text, source code, a table, a document; and how it is packed."""

from lightlm.data.formats import DOCUMENT_SUFFIXES as DOCUMENT_SUFFIXES
from lightlm.data.packing import PACKED_SUFFIXES as PACKED_SUFFIXES

TEXT_SUFFIXES = (".txt", ".md", ".text", ".markdown", ".mdx", ".rst", ".tex", ".org", ".adoc", ".asc", ".log")
CODE_SUFFIXES = tuple(
    ".py .pyi .js .mjs .jsx .ts .tsx .c .h .cc .cpp .cxx .hpp .hh .java .kt .kts .scala .go .rs .rb .php .pl .pm .lua "
    ".r .jl .swift .m .mm .cs .fs .vb .hs .ml .mli .clj .ex .exs .erl .elm .dart .sh .bash .zsh .fish .ps1 .bat .sql "
    ".css .scss .vue .svelte .asm .s .f90 .f .pas .lisp .el .scm .vhd .v .zig .nim .cr .cmake .toml .yaml .yml .ini "
    ".cfg".split()
)
TABLE_KINDS = {
    ".parquet": "parquet",
    ".arrow": "parquet",
    ".feather": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".psv": "csv",
}
SUFFIXES = (*TABLE_KINDS, *TEXT_SUFFIXES, *sorted(DOCUMENT_SUFFIXES))
