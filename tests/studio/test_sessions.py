"""Links and sessions: what lets a browser in, and how often."""

from lightlm.studio.sessions import TICKET_SECONDS, Sessions

KEY = "a-key-for-tests"


def test_a_ticket_is_good_once() -> None:
    sessions = Sessions(KEY)
    ticket = sessions.issue_ticket()
    assert not sessions.spend_ticket(ticket[:-1])
    assert sessions.spend_ticket(ticket)
    assert not sessions.spend_ticket(ticket)


def test_a_ticket_ends() -> None:
    now = [0.0]
    sessions = Sessions(KEY, lambda: now[0])
    ticket = sessions.issue_ticket()
    now[0] = TICKET_SECONDS + 1
    assert not sessions.spend_ticket(ticket)


def test_cookie_and_token_are_of_the_key_and_neither_is_the_other() -> None:
    one = Sessions(KEY)
    other = Sessions(f"{KEY}-2")
    name = one.cookie_name
    assert one.has_cookie(f"theme=dark; {name}={one.cookie}")
    assert one.has_token(one.token)
    assert Sessions(KEY).has_cookie(f"{name}={one.cookie}"), "a restart ends no session"
    assert not one.has_cookie(f"{name}={other.cookie}")
    assert not one.has_cookie(f"{name}={one.token}")
    assert not one.has_token(one.cookie)
    assert not one.has_cookie("")
    both = f"{name}={one.cookie}; {other.cookie_name}={other.cookie}"
    assert one.has_cookie(both), "another studio's cookie of this host replaces none"
    assert other.has_cookie(both)
    assert not one.has_token("ключ")
    assert KEY not in one.cookie + one.token
