"""The tasks of a corpus: each reads its files, and writes what follows from them alone to a URL.

A task that is done again, because its worker died, writes the same bytes again.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lightlm.data.building.job import VOCAB_SIZE, Job, describe_read, read_pieces
from lightlm.data.building.sketches import Signatures
from lightlm.data.copies.duplicates import digest_of
from lightlm.data.copies.leaks import find_leaks
from lightlm.data.copies.written import Documents
from lightlm.data.encoding import Encoder, EnginesDiffer, cut_chunks
from lightlm.data.files.record import DataRecord, LeftOutRecord, SourceRecord, add_up
from lightlm.data.passages import Piece
from lightlm.data.reading import Reading
from lightlm.data.shards import BLOCKS, ShardWriter, choose_dtype, describe_ids, write_split
from lightlm.data.splitting import CopyFilter, Limits, place_of
from lightlm.data.subset import describe_made, safe_name
from lightlm.data.tokenization.tokenizer import Tokenizer, load_tokenizer, prepare_tokenizer
from lightlm.data.writing import DocumentWriter
from lightlm.errors import DatasetError
from lightlm.json_object import JsonObject
from lightlm.params import DatasetParams
from lightlm.store.commit import MANIFEST
from lightlm.store.remote import RemoteFolder

BATCH_BYTES = 1 << 20
"""Bytes of text that are hashed together."""

SAMPLE_BYTES = 1 << 25
SAMPLED_TASKS = 64
"""Bytes of training text in a corpus' subset, and the tasks at most whose beginnings they are: what
a tokenizer is trained on, and a run's forecast looks at.
"""

BLOCK_BYTES = 1 << 21
"""Bytes of a block of token ids, which is what training asks for: 1 M tokens of two bytes."""

ENOUGH_SECONDS = 86_400.0
"""Seconds for the search for near copies in the sample: it depends on nothing but the text."""


def is_held_out(job: Job, digest: bytes) -> bool:
    """Return whether the document of a digest is held out, of a data set without a split for it."""
    most = job.dataset.max_validation_bytes / max(1, job.about_bytes)
    return not job.validation and place_of(digest) < min(job.dataset.validation_fraction, most)


def read_task(job: Job, rank: int) -> None:
    """Write what a task's documents are compared by, and those of them that are held out."""
    held_out: list[str] = []
    signatures = Signatures()
    for batch in _batch(read_pieces(job.open_task(rank))):
        kept = []
        for number, piece in batch:
            if is_held_out(job, digest_of(piece.text)):
                held_out.append(piece.text.decode("utf-8"))
            else:
                kept.append((number, piece.text))
        if kept and job.dataset.duplicates == "drop":
            signatures.add(*map(list, zip(*kept, strict=True)))

    with tempfile.TemporaryDirectory(prefix="lightlm-task-") as scratch:
        job.work.put_json(f"held-out/{rank:05d}.json", {"texts": held_out}, Path(scratch))
        for bucket, content in enumerate(signatures.write()):
            name = f"signatures/bucket_{bucket:03d}/{rank:05d}.minhash.sig"
            job.work.put_bytes(name, content, Path(scratch))


def hold_out(job: Job) -> None:
    """Write what all tasks of tokenization need: the held-out text, and the tokenizer."""
    with tempfile.TemporaryDirectory(prefix="lightlm-task-") as name:
        folder = Path(name)
        subset = folder / "subset"
        shards = folder / "shards"
        for one in (subset, shards):
            one.mkdir()

        _write_subset(job, subset)
        facts = _describe_subset(job, subset)
        found = describe_made(subset, facts)
        sizes = [job.tokenizer.vocab_size or VOCAB_SIZE]
        tokenizer = prepare_tokenizer(folder / "home", job.tokenizer, found, sizes)
        # The tokenizers library alone: what is held out is little.
        number = write_split(shards, found, "validation", tokenizer, is_fast=False)

        parts = {
            "subsets": _put_all(job, "subsets", subset),
            "tokenizers": _put_all(job, "tokenizers", tokenizer.folder),
            "shards": _put_all(job, "shards", shards),
        }
        ids = describe_ids(found, tokenizer) | {"num_validation_tokens": number}
        job.work.put_json("held-out.json", {"parts": parts, "shards": ids, "subset": facts}, folder)


def _describe_subset(job: Job, subset: Path) -> JsonObject:
    """Return what a corpus' subset says of itself, but for what only all tasks together know."""
    lengths = np.fromfile(subset / "validation.lengths", dtype="<u8")
    with (subset / "validation.text").open("rb") as text:
        digest = hashlib.file_digest(text, "sha256").hexdigest()
    return {
        "name": safe_name(job.name),
        "source": job.source,
        "source_digest": job.fingerprint,
        "num_documents": 0,
        "total_documents": None,
        "num_bytes": (subset / "train.text").stat().st_size,
        "num_validation_documents": len(lengths),
        "num_validation_bytes": int(lengths.sum()),
        "validation_sha256": digest,
        "is_running_text": not np.fromfile(subset / "train.ends", dtype=np.bool_).all(),
        "notice": None,
        "is_cut": True,
    }


def _write_subset(job: Job, folder: Path) -> None:
    """Write the held-out text and the sample of the other, without copies.

    Raises:
        DatasetError: there is not enough of one of the two.
    """
    dataset = job.dataset
    with DocumentWriter(folder, "validation") as held_out, DocumentWriter(folder, "train") as train:
        copies = CopyFilter(_limits(dataset), train, held_out)
        for piece in _read_held_out(job):
            if held_out.num_bytes + len(piece.text) <= dataset.max_validation_bytes:
                copies.add("validation", piece, digest_of(piece.text))

        step = max(1, len(job.tasks) // SAMPLED_TASKS)
        ranks = range(0, len(job.tasks), step)
        for rank in ranks:
            end = train.num_bytes + SAMPLE_BYTES // len(ranks)
            for _, piece in read_pieces(job.open_task(rank)):
                digest = digest_of(piece.text)
                if not is_held_out(job, digest):
                    own = piece._replace(document=piece.document + (rank << 40))
                    copies.add("train", own, digest)
                if train.num_bytes >= end:
                    break
        copies.drop_near(folder, ENOUGH_SECONDS)
        if not train.num_pieces or not held_out.num_pieces:
            raise DatasetError(
                f"{job.source} has {train.num_pieces:,} documents to train on and "
                f"{held_out.num_pieces:,} held out after copies are left out; give more text, or "
                "another dataset.validation_fraction"
            )


def _limits(dataset: DatasetParams) -> Limits:
    is_dropped = dataset.duplicates == "drop"
    most = dataset.max_validation_bytes
    return Limits(None, None, most, dataset.validation_fraction, is_dropped)


def _read_held_out(job: Job) -> Iterator[Piece]:
    if job.validation:
        for _, piece in read_pieces(job.open_held_out()):
            yield piece._replace(document=piece.document + (1 << 60))
        return
    number = 1 << 60
    for rank in range(len(job.tasks)):
        for text in job.work.read_json(f"held-out/{rank:05d}.json")["texts"]:
            yield Piece(text.encode(), number, 0)
            number += 1


def write_task(job: Job, rank: int) -> None:
    """Write the token ids of a task's documents, without near copies and held-out text."""
    with tempfile.TemporaryDirectory(prefix="lightlm-task-") as name:
        folder = Path(name)
        done = job.work.read_json("held-out.json")
        held_out = _get_all(job, "subsets", done["parts"]["subsets"], folder, "validation.")
        tokenizer = load_tokenizer(_get_all(job, "tokenizers", done["parts"]["tokenizers"], folder))

        texts = folder / "texts"
        texts.mkdir()
        reading = job.open_task(rank)
        gone = _read_gone(job, rank)
        near = [0, 0]
        with DocumentWriter(texts, "train") as writer:
            for number, piece in read_pieces(reading):
                if is_held_out(job, digest_of(piece.text)):
                    continue
                if number in gone:
                    near[0] += 1
                    near[1] += len(piece.text)
                    continue
                writer.add(piece)
            writer.flush()
            with (
                contextlib.closing(Documents(held_out, "validation")) as ours,
                contextlib.closing(Documents(texts, "train")) as theirs,
            ):
                is_leak = find_leaks(ours, theirs)
            writer.drop(is_leak)
            counts = {
                "num_documents": int(writer.ends.sum()),
                "num_bytes": writer.num_bytes,
                "near_duplicates": near[0],
                "duplicate_bytes": near[1],
                "leaks": int(is_leak.sum()),
                "sources": _describe_files(reading, writer),
            }

        try:
            number = _encode(texts, tokenizer, has_start=rank == 0, is_fast=True)
        except EnginesDiffer:
            number = _encode(texts, tokenizer, has_start=rank == 0, is_fast=False)
        target = job.folder / f"shards/{job.fingerprint}"
        files = [
            target.put(path) | {"blocks": _hash_blocks(path)}
            for path in sorted(texts.glob("train-*.bin"))
            if path.stat().st_size
        ]
        values = counts | {"num_tokens": number, "files": files}
        job.work.put_json(f"written/{rank:05d}.json", values, folder)


def _describe_files(reading: Reading, writer: DocumentWriter) -> list[JsonObject]:
    number = len(reading.files)
    documents = np.bincount(writer.files[writer.ends], minlength=number).tolist()
    sizes = np.bincount(writer.files, weights=writer.lengths, minlength=number)
    return describe_read(reading, documents, sizes.astype(np.int64).tolist())


def _read_gone(job: Job, rank: int) -> frozenset[int]:
    """Return the numbers of a task's pieces that are near copies of others, as datatrove lists
    them.
    """
    try:
        content = job.work.read(f"gone/{rank:06d}.remove")
    except FileNotFoundError:
        return frozenset()
    return frozenset(np.frombuffer(content, "<u4").tolist())


def _encode(texts: Path, tokenizer: Tokenizer, *, has_start: bool, is_fast: bool) -> int:
    """Write the ids of a folder's training documents to files there; return their number."""
    dtype = choose_dtype(tokenizer)
    encoder = Encoder(tokenizer, is_fast=is_fast)
    lengths = np.fromfile(texts / "train.lengths", dtype="<u8").astype(np.int64)
    ends = np.fromfile(texts / "train.ends", dtype=np.bool_)
    with ShardWriter(texts, "train") as writer, (texts / "train.text").open("rb") as text:
        if has_start:
            writer.add(np.array([tokenizer.end_of_text_id], dtype=dtype))
        for chunk in cut_chunks(iter([lengths]), ends):
            encoded = encoder.encode(text, chunk, dtype, tokenizer.end_of_text_id)
            writer.add(np.frombuffer(encoded.ids, dtype))
        return writer.num_tokens


def _hash_blocks(path: Path) -> list[str]:
    with path.open("rb") as file:
        blocks = iter(lambda: file.read(BLOCK_BYTES), b"")
        return [hashlib.sha256(block).hexdigest() for block in blocks]


def finish(job: Job) -> None:
    """Write the manifests, the corpus' own last: from then on it is there."""
    done = job.work.read_json("held-out.json")
    written = [job.work.read_json(f"written/{rank:05d}.json") for rank in range(len(job.tasks))]
    num_bytes, num_tokens, num_documents = (
        sum(task[name] for task in written) for name in ("num_bytes", "num_tokens", "num_documents")
    )
    files = [file for task in written for file in task["files"]]
    shards = done["shards"] | {"num_train_tokens": num_tokens, "num_train_bytes": num_bytes}
    record = _sum_up(job, written, done["subset"])
    subset = done["subset"] | {
        "num_documents": num_documents,
        "source_bytes": num_bytes,
        "record": record.model_dump(mode="json"),
    }

    with tempfile.TemporaryDirectory(prefix="lightlm-task-") as name:
        scratch = Path(name)
        folder = job.folder / f"shards/{job.fingerprint}"
        listed = {
            "block_bytes": BLOCK_BYTES,
            "files": [{key: file[key] for key in ("bytes", "sha256", "blocks")} for file in files],
        }
        (scratch / BLOCKS).write_text(json.dumps(listed), encoding="utf-8")
        done["parts"]["shards"][BLOCKS] = folder.put(scratch / BLOCKS)
        done["parts"]["shards"] |= {
            f"train-{index:05d}.bin": {key: file[key] for key in ("bytes", "sha256")}
            for index, file in enumerate(files)
        }
        metas = {"subsets": subset, "tokenizers": {}, "shards": shards}
        parts = {
            kind: [
                job.fingerprint,
                (job.folder / f"{kind}/{job.fingerprint}").put_manifest(
                    kind, metas[kind], done["parts"][kind], scratch
                ),
            ]
            for kind in metas
        }
        facts = {"num_bytes": num_bytes, "num_tokens": num_tokens, "parts": parts}
        job.folder.put_manifest("corpus", {"name": job.name} | facts, {}, scratch)


def _sum_up(job: Job, written: list[JsonObject], subset: JsonObject) -> DataRecord:
    """Return the record of all tasks."""
    rows = [row for task in written for row in task["sources"]]
    errors = [(row.pop("error"), row) for row in rows]
    left_out = [LeftOutRecord(path=row["path"], reason=why) for why, row in errors if why]
    sources = [SourceRecord.model_validate(row) for why, row in errors if not why]
    train, held_out = (sum(task["num_bytes"] for task in written), subset["num_validation_bytes"])
    how = (
        "chosen by a hash of each document"
        if job.held_out_by == "hash"
        else f"the split {job.held_out_by}"
    )
    columns = sorted({row.column for row in sources if row.column is not None})
    encodings = [row.encoding for row in sources]
    return DataRecord(
        documents=sum(task["num_documents"] for task in written),
        train_bytes=train,
        validation_bytes=held_out,
        sources=add_up(sources),
        left_out=[*job.left_out, *left_out],
        encodings={name: encodings.count(name) for name in sorted(set(encodings))},
        replaced_bytes=sum(row.replaced_bytes for row in sources),
        empty_rows=sum(row.empty_rows for row in sources),
        near_duplicates=sum(task["near_duplicates"] + task["leaks"] for task in written),
        duplicate_bytes=sum(task["duplicate_bytes"] for task in written),
        split=f"{held_out / max(1, train + held_out):.1%} of the bytes, {how}",
        column=", ".join(columns) or None,
    )


def _put_all(job: Job, kind: str, folder: Path) -> JsonObject:
    """Upload the files of a folder; return their entries of a manifest."""
    target = job.folder / f"{kind}/{job.fingerprint}"
    paths = [path for path in sorted(folder.iterdir()) if path.name != MANIFEST and path.is_file()]
    return {path.name: target.put(path) for path in paths if not path.name.startswith(".")}


def _get_all(job: Job, kind: str, files: JsonObject, scratch: Path, beginning: str = "") -> Path:
    """Return a folder with the files of a part whose names begin so."""
    folder = scratch / kind
    folder.mkdir()
    source = job.folder / f"{kind}/{job.fingerprint}"
    wanted = {name: entry for name, entry in files.items() if name.startswith(beginning)}
    source.download(wanted, folder)
    return folder


def _batch(pieces: Iterator[tuple[int, Piece]]) -> Iterator[list[tuple[int, Piece]]]:
    batch: list[tuple[int, Piece]] = []
    size = 0
    for number, piece in pieces:
        batch.append((number, piece))
        size += len(piece.text)
        if size >= BATCH_BYTES:
            yield batch
            batch = []
            size = 0
    if batch:
        yield batch


def read_job(url: str) -> Job:
    """Return the job that lies at a URL."""
    folder, _, name = url.rpartition("/")
    return Job.model_validate(RemoteFolder(folder).read_json(name))
