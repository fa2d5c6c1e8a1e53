"""Tests of redaction: secrets go, and what only looks like one stays."""

import json

import pytest

from lightlm.redaction import first_line, redact

# (what must not be left, where it stands)
SECRETS = [
    ("hf_abcdefghijklmnopqrstuvwxyz", "pushed with hf_abcdefghijklmnopqrstuvwxyz today"),
    ("ghp_0123456789abcdefghij", "https://example.org/?t=ghp_0123456789abcdefghij"),
    ("github_pat_11ABCDEFG0123456789", "github_pat_11ABCDEFG0123456789"),
    ("glpat-abcdefghij0123456789", "glpat-abcdefghij0123456789"),
    ("xoxb-123456789012-abcdef", "xoxb-123456789012-abcdef"),
    ("sk-proj-0123456789abcdefghij", "sk-proj-0123456789abcdefghij"),
    ("AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
    ("eyJzdWIiOiIxMjM0In0", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"),
    ("MIIEvQIBADANBg", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----"),
    ("sesame42", "https://alice:sesame42@host/x"),
    ("s@same42", "postgresql+psycopg://alice:s@same42@host:5432/mlflow"),
    ("sesame42", "redis://:sesame42@host"),
    ("0a1b2c3d4e5f", "https://0a1b2c3d4e5f@github.com/a/b"),
    ("9f8e7d6c5b", "https://bucket/data.parquet?X-Amz-Date=1&X-Amz-Signature=9f8e7d6c5b&z=1"),
    ("9f8e7d6c5b", "https://account.blob.core.windows.net/data?sv=1&sig=9f8e7d6c5b%3D"),
    ("sesame42value", "Authorization: Bearer sesame42value"),
    ("YWxpY2U6c2VzYW1l", "Authorization: Basic YWxpY2U6c2VzYW1l"),
    ("sesame42", "token=sesame42 and more"),
    ("sesame42", "HF_TOKEN=sesame42"),
    ("wJalrXUtnFEMI/K7MDENG", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG"),
    ("sesame", "password: sesame"),
    ("open, sesame", '{"password": "open, sesame", "steps": 3}'),
    ("sesame42", '{"token":"sesame42"}'),
    ("sesame42", json.dumps(json.dumps({"api_key": "sesame42"}))),
    ("sesame42", "{'apiKey': 'sesame42'}"),
]

HARMLESS = [
    "generation.max_new_tokens=128, SHA-256 a3c995f97e3c638c, tokens_per_second: 31000.25",
    "models:/lightlm@champion at http://127.0.0.1:5000/#/models",
    "file:///home/somebody/data@v2/train.parquet; hf://datasets/a/b@main",
    "loss in nats a token: 3.141592, end_of_text_token: <|endoftext|>",
    '{"token": "<|endoftext|>", "password": null, "secret": "", "steps": 3}',
    "The basic understanding of tokens: many. A task-oriented text, risk-averse and disk-bound.",
]


@pytest.mark.parametrize(("secret", "text"), SECRETS)
def test_a_secret_is_hidden_and_once_is_enough(secret: str, text: str) -> None:
    assert secret not in redact(text)
    assert "[hidden]" in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_a_long_text_without_spaces_is_looked_through_all_the_same() -> None:
    assert redact("ab-" * 300_000 + " password=sesame").endswith("password=[hidden]")


def test_an_error_is_one_short_line_without_secrets() -> None:
    assert first_line(ValueError("  token=sesame42\nand more")) == "token=[hidden]"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 1000))) == 300
