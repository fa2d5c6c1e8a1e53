from lightlm.versions.held_out import limit_sample, take_bytes


def test_a_sample_ends_between_two_characters_and_has_no_empty_document():
    documents = [b"abc", "dé".encode(), b"ef"]
    assert list(take_bytes(documents, 5)) == [b"abc", b"d"]
    assert list(take_bytes(documents, 3)) == [b"abc"]
    assert list(take_bytes(documents, 100)) == documents


def test_a_large_model_reads_less_text():
    documents = [b"x" * 1000] * 1000
    small = sum(map(len, limit_sample(documents, 1_000_000)))
    large = sum(map(len, limit_sample(documents, 1_000_000_000)))
    assert small == 1 << 18
    assert 0 < large < small
