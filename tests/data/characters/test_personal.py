"""Tests of personal data found by its form."""

import pytest

from lightlm.data.characters.personal import count_personal, format_personal, mask_personal


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to ann.lee+x@mail.example.org.", "Write to <mail address>."),
        ("call +49 30 901820, please", "call <phone number>, please"),
        ("(555) 010-9999 or 555-010-9999", "<phone number> or <phone number>"),
        ("+1 (555) 010-9999", "<phone number>"),
        ("key AKIAABCDEFGHIJKLMNOP here", "key <key> here"),
        (f"token ghp_{'a1' * 18}!", "token <key>!"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE+/==\n-----END RSA PRIVATE KEY-----\nend",
            "<key>\nend",
        ),
        ("Grüße an jö@müller.de", "Grüße an jö@müller.de"),
        (
            "in 1914-1918, 3.14159 and 2026-12-01 10:00",
            "in 1914-1918, 3.14159 and 2026-12-01 10:00",
        ),
        ("version 1.2.3-4, ISBN 978-3-16-148410-0", "version 1.2.3-4, ISBN 978-3-16-148410-0"),
        ("a @ b, x@y and 1 + 23 456", "a @ b, x@y and 1 + 23 456"),
    ],
)
def test_what_has_the_form_of_personal_data_is_replaced_and_nothing_else(
    text: str, masked: str
) -> None:
    assert mask_personal(text.encode())[0].decode() == masked


def test_what_was_replaced_is_counted_by_kind_and_is_not_found_again() -> None:
    text = b"a@b.org, c@d.net, +44 20 7946 0000"
    found = count_personal(text)
    assert found == {"mail address": 2, "phone number": 1}
    assert format_personal(found) == "2 mail addresses, 1 phone number"
    assert not count_personal(mask_personal(text)[0])
