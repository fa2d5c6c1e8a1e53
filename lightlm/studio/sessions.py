"""Who may use the studio: a one-time link or the key gives a cookie and a token.

A request to the studio's API needs both. The cookie alone would not do: a browser sends it to
every port of a host, so another server on this machine could read it. The token is kept by the
page, which a browser keeps apart by port, and a foreign page cannot send it.
"""

import hmac
import secrets
import time
from collections.abc import Callable

from starlette.requests import cookie_parser

from lightlm.serving.guard import hash_key

COOKIE = "lightlm-studio"
"""What the names of the cookies begin with."""

TOKEN_HEADER = "x-lightlm-token"  # noqa: S105

TICKET_SECONDS = 600.0
"""Seconds in which a link can be used."""


class Sessions:
    """The credentials of one studio, all made of its key; a link's ticket is good for one login."""

    def __init__(self, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key
        self._clock = clock
        self._tickets: dict[bytes, float] = {}

    def issue_ticket(self) -> str:
        """Return a new ticket, for a link."""
        ticket = secrets.token_urlsafe(32)
        self._tickets[hash_key(ticket.encode())] = self._clock() + TICKET_SECONDS
        return ticket

    def spend_ticket(self, ticket: str) -> bool:
        """Return whether a ticket is good; it is not a second time."""
        ends_at = self._tickets.pop(hash_key(ticket.encode()), None)
        return ends_at is not None and self._clock() < ends_at

    def is_key(self, given: str) -> bool:
        """Return whether this is the key."""
        return hmac.compare_digest(hash_key(given.encode()), hash_key(self._key.encode()))

    @property
    def cookie_name(self) -> str:
        """The cookie's name. A browser keeps one cookie of a name for all ports of a host, so that
        studios of other homes, which have other keys, need other names.
        """
        return f"{COOKIE}-{self._derive('cookie name')[:8]}"

    @property
    def cookie(self) -> str:
        """The cookie's value."""
        return self._derive("cookie")

    @property
    def token(self) -> str:
        """The value of TOKEN_HEADER."""
        return self._derive("token")

    def has_cookie(self, header: str) -> bool:
        """Return whether a request's Cookie header holds the cookie."""
        return _is_same(cookie_parser(header).get(self.cookie_name, ""), self.cookie)

    def has_token(self, header: str) -> bool:
        """Return whether a request's token is right."""
        return _is_same(header, self.token)

    def _derive(self, purpose: str) -> str:
        return hmac.new(self._key.encode(), f"studio {purpose}".encode(), "sha256").hexdigest()


def _is_same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
