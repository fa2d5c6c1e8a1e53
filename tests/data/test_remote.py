"""Tests of a file of the Hub that is read by ranges, against a server that fails in all ways."""

import io

import pytest

from lightlm.data.remote import HubUnreachable, RemoteFile

from .hub_server import count_asked_bytes, serve_hub

CONTENT = bytes(range(256)) * 64
FILES = {"owner/text": {"train.txt": CONTENT}}


def open_file(endpoint: str, size: int = len(CONTENT)) -> RemoteFile:
    url = f"{endpoint}/datasets/owner/text/resolve/main/train.txt"
    return RemoteFile(url, "train.txt", size, waits=(0.0, 0.0))


def test_a_range_is_asked_for_again_until_it_is_whole() -> None:
    with serve_hub(FILES, faults=["cut", "short", "", "429", "503"]) as (endpoint, requests):
        file = open_file(endpoint)
        assert file.fetch(100, 900) == CONTENT[100:900]
        assert file.fetch(0, 10) == CONTENT[:10]

    assert len(requests) == 6
    assert count_asked_bytes(requests) == 3 * 800 + 3 * 10
    assert file.num_bytes == 810


@pytest.mark.parametrize(
    ("fault", "reason", "tries"),
    [
        ("cut", "train.txt: .*, after 3 tries", 3),
        ("short", "train.txt: 9 bytes came instead of 10, after 3 tries", 3),
        ("long", "train.txt: .* bytes came instead of 10, after 3 tries", 3),
        ("packed", "train.txt: the Hub sends gzip, which was not asked for", 1),
        ("503", "train.txt: the Hub answers 503, after 3 tries", 3),
        ("403", "train.txt: the Hub answers 403", 1),
        ("200", "train.txt: the server sends whole files", 1),
        ("other", "train.txt: wanted bytes 0-9/16384, the Hub answers 'bytes 1-9/16384'", 1),
    ],
)
def test_a_range_that_never_comes_is_an_error_with_the_reason(
    fault: str, reason: str, tries: int
) -> None:
    with (
        serve_hub(FILES, faults=[fault] * 3) as (endpoint, requests),
        pytest.raises(HubUnreachable, match=reason),
    ):
        open_file(endpoint).fetch(0, 10)
    assert len(requests) == tries


def test_a_file_of_another_length_than_was_listed_is_refused() -> None:
    with serve_hub(FILES) as (endpoint, _), pytest.raises(HubUnreachable, match="wanted bytes"):
        open_file(endpoint, size=len(CONTENT) - 1).fetch(0, 10)


def test_a_remote_file_reads_as_a_file() -> None:
    with serve_hub(FILES) as (endpoint, _), open_file(endpoint).open() as stream:
        stream.seek(-20, io.SEEK_END)
        assert stream.read(100) == CONTENT[-20:]
        assert stream.read(1) == b""
        stream.seek(5)
        stream.seek(5, io.SEEK_CUR)
        assert stream.read(3) == CONTENT[10:13] and stream.tell() == 13
