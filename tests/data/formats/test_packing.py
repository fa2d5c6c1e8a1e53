"""Packed files and archives: their bytes come out whole, or an error names the file; a bomb ends
soon.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from lightlm.data.formats import packing
from lightlm.data.formats.packed_streams import MAX_RATIO
from lightlm.data.formats.packing import (
    PACKED_SUFFIXES,
    Member,
    close_archives,
    list_members,
    open_packed,
    split_suffix,
)
from lightlm.errors import DatasetError

TEXT = "".join(f"Line {number} of a longer text, ünd more.\n" for number in range(20_000)).encode()


def pack_zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": pack_zstd,
}


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def find_member(path: Path, name: str) -> Member:
    """Return the member of a name; of several, one that is read."""
    found = [member for member in list_members(path) if member.name == name]
    return next((member for member in found if member.left_out is None), found[-1])


def read(path: Path, member: Member | str | None = None) -> bytes:
    with open_packed(
        path, find_member(path, member) if isinstance(member, str) else member
    ) as stream:
        return stream.read()


@pytest.fixture(autouse=True)
def _close():
    yield
    close_archives()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jsonl.gz", (".jsonl", ".gz")),
        ("A.TXT.ZST", (".txt", ".zst")),
        ("a.txt", (".txt", "")),
        ("notes.gz", ("", ".gz")),
        ("corpus.tar.xz", ("", ".tar.xz")),
        ("corpus.v2.tgz", ("", ".tgz")),
        ("README", ("", "")),
        (".gz", ("", "")),
        ("folder/books.zip", ("", ".zip")),
    ],
)
def test_a_name_says_its_own_suffix_and_its_packing(name: str, found: tuple[str, str]) -> None:
    assert split_suffix(name) == found


@pytest.mark.parametrize("packing_suffix", PACK)
def test_a_packed_file_gives_its_bytes_as_often_as_it_is_opened(
    packing_suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.txt{packing_suffix}"
    path.write_bytes(PACK[packing_suffix](TEXT))
    assert read(path) == TEXT
    assert read(path) == TEXT


@pytest.mark.parametrize("packing_suffix", PACK)
def test_parts_that_follow_each_other_are_all_read(packing_suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{packing_suffix}"
    path.write_bytes(
        PACK[packing_suffix](TEXT) + PACK[packing_suffix](b"") + PACK[packing_suffix](b"end")
    )
    assert read(path) == TEXT + b"end"


@pytest.mark.parametrize("packing_suffix", PACK)
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.9999])
def test_a_torn_file_ends_in_an_error_with_its_name(
    packing_suffix: str, kept: float, tmp_path: Path
) -> None:
    path = tmp_path / f"a.txt{packing_suffix}"
    packed = PACK[packing_suffix](TEXT)
    path.write_bytes(packed[: int(len(packed) * kept)])
    with pytest.raises(
        DatasetError, match=r"a\.txt\S+ ends in the middle; download or pack it again"
    ):
        read(path)


@pytest.mark.parametrize("packing_suffix", PACK)
def test_a_damaged_or_mislabelled_file_ends_in_an_error_with_its_name(
    packing_suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.txt{packing_suffix}"
    packed = PACK[packing_suffix](TEXT)
    middle = len(packed) // 2

    for content in (
        b"<html>Not found</html>",
        packed[:middle] + b"\0" * 64 + packed[middle + 64 :],
        packed + b"more text",
    ):
        path.write_bytes(content)
        with pytest.raises(
            DatasetError, match=r"a\.txt\S+ (cannot be unpacked|ends in the middle)"
        ):
            read(path)


def test_padding_of_zeros_after_gzip_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "tape.txt.gz"
    path.write_bytes(gzip.compress(TEXT) + b"\0" * 300_000)
    assert read(path) == TEXT


@pytest.mark.parametrize("packing_suffix", PACK)
def test_a_bomb_ends_in_an_error_before_it_has_expanded(
    packing_suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1 << 24
    monkeypatch.setattr("lightlm.data.formats.packed_streams.FREE_BYTES", free)
    one = PACK[packing_suffix](bytes(1 << 24))
    path = tmp_path / f"bomb.txt{packing_suffix}"
    path.write_bytes(one * 400)  # 6.4 GB
    read_bytes = 0

    with (
        pytest.raises(DatasetError, match="times its size, more than 200"),
        open_packed(path) as stream,
    ):
        while block := stream.read(1 << 20):
            read_bytes += len(block)

    assert read_bytes <= max(free, MAX_RATIO * path.stat().st_size) + (1 << 20)


def test_reading_a_packed_file_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(TEXT * 40, 1))
    tracemalloc.start()
    with open_packed(path) as stream:
        while stream.read(1 << 16):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_zstd_of_a_long_window_says_how_to_unpack_it(tmp_path: Path) -> None:
    # A frame that declares a window of 2 GB (exponent 21, mantissa 0), as `zstd --long=31` writes.
    path = tmp_path / "dump.jsonl.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes([0x00, 21 << 3]) + b"\x19\0\0abc")
    with pytest.raises(DatasetError, match=r"unpack it: zstd -d --long=31 \S+dump\.jsonl\.zst"):
        read(path)


def test_xz_that_asks_for_gigabytes_says_how_to_unpack_it(tmp_path: Path) -> None:
    path = tmp_path / "dump.txt.xz"
    compressor = lzma.LZMACompressor(
        format=lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]
    )
    packed = bytearray(compressor.compress(b"text") + compressor.flush())
    header = bytearray(packed[12:20])
    assert header[2] == lzma.FILTER_LZMA2
    header[4] = 34  # 512 MB, in place of 64 kB
    packed[12:24] = header + struct.pack("<I", zlib.crc32(header))
    path.write_bytes(packed)
    with pytest.raises(DatasetError, match=r"unpack it: xz -dk \S+dump\.txt\.xz"):
        read(path)


TAR_MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


@pytest.mark.parametrize("suffix", [*TAR_MODES, ".tar.zst", ".zip"])
def test_members_of_an_archive_are_listed_and_read_in_any_order(
    suffix: str, tmp_path: Path
) -> None:
    members = {
        f"notes/{number:02}.txt": f"note {number}\n".encode() * 100 * number for number in range(12)
    }
    path = tmp_path / f"notes{suffix}"

    if suffix == ".zip":
        write_zip(path, members)
    elif suffix == ".tar.zst":
        path.write_bytes(pack_zstd(write_tar(tmp_path / "notes.tar", members).read_bytes()))
    else:
        write_tar(path, members, TAR_MODES[suffix])

    found = list_members(path)
    assert [(member.name, member.size, member.left_out) for member in found] == [
        (name, len(data), None) for name, data in members.items()
    ]
    for member in (*found, *reversed(found), found[3], found[3]):
        assert read(path, member) == members[member.name]
        assert read(path, member.name) == members[member.name]


def test_large_members_of_a_packed_tar_are_read_again_and_after_being_left_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightlm.data.formats.tar_archive.KEPT_MEMBER_BYTES", 100)
    members = {f"{number}.txt": os.urandom(5_000 + number) for number in range(5)}
    path = write_tar(tmp_path / "a.tar.gz", members, "w:gz")
    first, second, *_ = list_members(path)

    with open_packed(path, first) as stream, open_packed(path, second) as other:
        assert stream.read(10) == members["0.txt"][:10]
        assert other.read() == members["1.txt"]
        assert stream.read() == members["0.txt"][10:]

    for name, data in members.items():
        with open_packed(path, find_member(path, name)) as stream:
            assert stream.read(100) == data[:100]

    assert read(path, "4.txt") == members["4.txt"]


def test_members_may_be_packed_themselves_and_archives_in_archives_are_left_out(
    tmp_path: Path,
) -> None:
    inner = write_zip(tmp_path / "inner.zip", {"a.txt": TEXT}).read_bytes()
    path = write_zip(
        tmp_path / "a.zip",
        {"posts.jsonl.gz": gzip.compress(TEXT), "inner.zip": inner, "b.7z": b"7z"},
    )
    left_out = {member.name: member.left_out for member in list_members(path)}
    assert left_out == {
        "posts.jsonl.gz": None,
        "inner.zip": "an archive within an archive; unpack it first",
        "b.7z": "an archive within an archive; unpack it first",
    }

    assert read(path, "posts.jsonl.gz") == TEXT
    with pytest.raises(DatasetError, match="an archive within an archive"):
        read(path, "inner.zip")


def test_names_that_lead_out_hidden_files_links_and_devices_are_left_out_by_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in (
            "/etc/passwd",
            "../up.txt",
            "a/../../up.txt",
            "C:\\up.txt",
            "__MACOSX/._a.txt",
            ".DS_Store",
            "ok.txt",
        ):
            tar.addfile(tarfile.TarInfo(name))
        for name, kind in (
            ("soft", tarfile.SYMTYPE),
            ("hard", tarfile.LNKTYPE),
            ("null", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc/passwd"
            tar.addfile(info)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)

    out = "its name leads out of the archive"
    assert [(member.name, member.left_out) for member in list_members(path)] == [
        ("/etc/passwd", out),
        ("../up.txt", out),
        ("a/../../up.txt", out),
        ("C:/up.txt", out),
        ("__MACOSX/._a.txt", "hidden"),
        (".DS_Store", "hidden"),
        ("ok.txt", None),
        ("soft", "a link"),
        ("hard", "a link"),
        ("null", "a device or a pipe"),
    ]


def test_a_link_in_a_zip_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("ok.txt", "text")
    assert [(member.name, member.left_out) for member in list_members(path)] == [
        ("link.txt", "a link"),
        ("ok.txt", None),
    ]


def test_a_member_without_a_name_is_left_out(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"NNN": b"1", "ok.txt": b"2"})
    path.write_bytes(path.read_bytes().replace(b"NNN", b"\0NN"))
    assert [(member.name, member.left_out) for member in list_members(path)] == [
        (".", "it has no name"),
        ("ok.txt", None),
    ]


def test_of_two_members_with_one_name_the_later_is_read(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as archive:
        for data in (b"old", b"new!"):
            info = tarfile.TarInfo("./a.txt")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.txt", "old")
        archive.writestr("a.txt", "new!")

    for path in (tar, zipped):
        assert [member.left_out for member in list_members(path)] == [
            "a later member has the same name",
            None,
        ]
        assert read(path, "a.txt") == b"new!"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [("größe.txt".encode(), "größe.txt"), ("gr\u00f6\u00dfe.txt".encode("cp437"), "größe.txt")],
)
def test_names_in_a_zip_are_utf_8_or_code_page_437(raw: bytes, shown: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"N" * len(raw): TEXT})
    path.write_bytes(path.read_bytes().replace(b"N" * len(raw), raw))
    assert [member.name for member in list_members(path)] == [shown]
    assert read(path, shown) == TEXT


def test_names_in_a_tar_that_are_no_utf_8_are_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("größe.txt"))
    assert [member.name for member in list_members(path)] == ["größe.txt"]


def encrypt_flags(path: Path, members: int) -> None:
    """Set the flag of encryption of the first members of a zip, in both of its tables."""
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        for _ in range(members):
            place = data.index(mark, place + 1)
            data[place + offset] |= 1
    path.write_bytes(data)


def test_an_encrypted_zip_is_refused_and_single_encrypted_members_are_left_out(
    tmp_path: Path,
) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.txt": b"1", "b.txt": b"2"})
    encrypt_flags(path, 1)
    assert [member.left_out for member in list_members(path)] == ["encrypted", None]
    encrypt_flags(path, 2)
    os.utime(path, (1, 1))
    with pytest.raises(DatasetError, match=r"a\.zip is encrypted; unpack it with its password"):
        list_members(path)


def test_a_zip_that_expands_too_far_is_refused_from_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightlm.data.formats.packed_streams.FREE_BYTES", 1 << 20)
    path = write_zip(
        tmp_path / "bomb.zip", {f"{number}.txt": bytes(1 << 21) for number in range(4)}
    )
    with pytest.raises(DatasetError, match=r"bomb\.zip expands to .* times its size"):
        list_members(path)


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_says(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.txt": bytes(100_000)})
    path.write_bytes(
        path.read_bytes().replace(struct.pack("<I", 100_000), struct.pack("<I", 1_000))
    )
    with pytest.raises(DatasetError, match=r"a\.txt is damaged"):
        read(path, "a.txt")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>Not found</html>", b"\xff" * 5_000], ids=["empty", "page", "noise"]
)
def test_what_is_no_archive_is_refused_by_name(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.(zip|tar|tar\.gz) "):
        list_members(path)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
def test_a_torn_archive_is_refused_by_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    members = {"a.txt": os.urandom(50_000), "b.txt": os.urandom(50_000)}
    write_zip(path, members) if suffix == ".zip" else write_tar(path, members, TAR_MODES[suffix])
    path.write_bytes(path.read_bytes()[:80_000])
    with pytest.raises(DatasetError, match=r"a\.(zip|tar|tgz) "):
        list_members(path)


def test_a_damaged_header_in_a_tar_is_no_end_of_it(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.txt": b"1", "b.txt": b"2"})
    data = bytearray(path.read_bytes())
    data[1024 + 148 : 1024 + 156] = b"7777777\0"  # the checksum of the second header
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"a\.tar is damaged after its member 1"):
        list_members(path)


def test_a_tar_header_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("long")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1 << 34
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4_096))
    with pytest.raises(DatasetError, match="a header of"):
        list_members(path)


def test_a_tar_whose_header_points_backward_is_refused(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("a.txt").tobuf())
    header[124:136] = b"\xff" + b"\xff" * 9 + b"\xf0\x00"  # a size of -4,096
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(tarfile.TarInfo("b.txt").tobuf() * 10 + bytes(header) + bytes(1_024))
    with pytest.raises(DatasetError, match=r"a\.tar "):
        list_members(path)


def test_parquet_in_an_archive_can_be_read_anywhere(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["one", "two"]}), sink)
    path = write_zip(tmp_path / "a.zip", {"rows.parquet": sink.getvalue()})
    with open_packed(path, find_member(path, "rows.parquet")) as stream:
        assert pq.ParquetFile(stream).read().column("text").to_pylist() == ["one", "two"]


def test_a_spooled_input_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SPOOLED_BYTES", 1_000)
    path = tmp_path / "rows.parquet.gz"
    path.write_bytes(gzip.compress(TEXT))
    with pytest.raises(DatasetError, match=r"rows\.parquet\.gz expands to more than"):
        open_packed(path)


def test_an_archive_without_a_member_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.txt": b"1"})
    with pytest.raises(DatasetError, match="is an archive"):
        open_packed(path)


def test_every_packed_suffix_is_split_off() -> None:
    assert all(split_suffix(f"a{suffix}")[1] == suffix for suffix in PACKED_SUFFIXES)
