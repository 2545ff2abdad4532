"""Who a request is from: which credential is meant, who is asked, and for how long an answer counts."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from mcp_registry.access import admission, auth, limits, rules, tokens
from mcp_registry.aws import invoke
from mcp_registry.caller import DEFAULT_TEAM, ROLES
from mcp_registry.errors import ValidationFailed
from tests import issuer

HOME = "192.0.2.1"
ADMINISTRATOR = {"name": "admin", "role": "admin", "team": "default"}


def basic(password: str, name: str = "admin") -> str:
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


class Registry:
    """A function that knows tokens, behind Lambda's API; and the time, which is the test's own."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.known: dict[str, dict[str, str]] = {}
        self.asked: list[Any] = []
        self.is_away = False

    def make(self, role: str = "reader", team: str = "payments") -> tokens.Token:
        token = tokens.make()
        caller = {"name": f"token:{token.id}", "role": role, "team": team}
        self.known[tokens.digest(token.text).hex()] = caller
        return token

    def answer(self, question: Any) -> Any:
        self.asked.append(question)
        return {"caller": self.known.get(question["token"]["digest"])}


@pytest.fixture
def registry(monkeypatch) -> Generator[Registry]:
    registry = Registry()

    class Lambda(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/2015-03-31/functions/Identify/invocations"
            content = json.dumps(registry.answer(question)).encode()
            self.send_response(503 if registry.is_away else 200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Lambda) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        given = {
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{server.server_port}",
            "AWS_REGION": "eu-west-1",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "IDENTIFY_URL": "https://lambda.invalid/2015-03-31/functions/Identify/invocations",
            "REGISTRY_PASSWORD": "password",
            "REGISTRY_SECRET_ARN": "",
            "REGISTRY_USERNAME": "admin",
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(invoke, "_kept", None)
        monkeypatch.setattr(admission, "time", SimpleNamespace(time=lambda: registry.now))
        admission.forget()
        yield registry
        admission.forget()
        server.shutdown()
        thread.join()


def test_basic_credentials_are_the_administrators_and_ask_nobody(registry):
    assert admission.caller_of(basic("password"), HOME) == ADMINISTRATOR
    assert admission.caller_of(basic("wrong"), HOME) is None
    assert registry.asked == []


def test_the_administrator_has_the_role_and_the_team_that_the_registry_knows():
    told = (admission.ADMINISTRATOR_ROLE, admission.ADMINISTRATOR_TEAM)
    assert told == (ROLES[-1], DEFAULT_TEAM)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_is_asked_for_by_its_id_and_its_digest(registry, scheme):
    token = registry.make("curator")
    caller = {"name": f"token:{token.id}", "role": "curator", "team": "payments"}
    assert admission.caller_of(f"{scheme} {token.text}", HOME) == caller
    assert registry.asked == [{"token": {"id": token.id, "digest": tokens.digest(token.text).hex()}}]


@pytest.mark.parametrize("name", ["", "x", "admin", "\xe4"])
def test_a_token_is_taken_as_the_password_of_any_name(registry, name):
    token = registry.make()
    caller = admission.caller_of(basic(token.text, name), HOME)
    assert caller is not None and caller["name"] == f"token:{token.id}"


def test_a_token_is_no_password_of_the_administrators_whatever_that_is(registry, monkeypatch):
    """Else who has a token that nobody knows would be told whether it is the password."""
    token = tokens.make()
    monkeypatch.setenv("REGISTRY_PASSWORD", token.text)
    assert admission.caller_of(basic(token.text), HOME) is None


@pytest.mark.parametrize("password", ["a.b.c", "mcpr_x", "mcpr_a_b_c", "..", "x" * 5_000, "p\xe4ss:w\xf6rd"])
def test_a_password_may_be_any_other_text(registry, monkeypatch, password):
    monkeypatch.setenv("REGISTRY_PASSWORD", password)
    assert admission.caller_of(basic(password), HOME) == ADMINISTRATOR


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b.c",
        "Token x",
        "x",
        "\ud800",
        "Bearer \ud800",
        "Bearer " + "." * 9_000,
    ],
)
def test_what_is_no_credential_asks_nobody(registry, header):
    assert admission.caller_of(header, HOME) is None
    assert registry.asked == []


def test_another_scheme_or_space_makes_no_token(registry):
    token = registry.make()
    for header in (token.text, f"Token {token.text}", f"Bearer  {token.text}", f"Bearer {token.text} "):
        assert admission.caller_of(header, HOME) is None
    assert registry.asked == []


def test_an_answer_counts_for_25_seconds_whoever_is_meant(registry):
    token, unknown = registry.make(), tokens.make()
    for seconds, asked in ((0.0, 2), (24.9, 2), (25.0, 4)):
        registry.now = 1_000_000.0 + seconds
        for header in (f"Bearer {token.text}", basic(token.text)):
            assert admission.caller_of(header, HOME) is not None
        assert admission.caller_of(f"Bearer {unknown.text}", HOME) is None
        assert len(registry.asked) == asked


def test_a_clock_that_is_set_back_ends_an_answer(registry):
    token = registry.make()
    admission.caller_of(f"Bearer {token.text}", HOME)
    registry.known.clear()
    registry.now -= 0.1
    assert admission.caller_of(f"Bearer {token.text}", HOME) is None


def test_with_nobody_to_ask_what_is_known_counts_while_it_is_fresh_and_nothing_else_does(registry):
    token = registry.make()
    assert admission.caller_of(f"Bearer {token.text}", HOME) is not None
    registry.is_away = True
    registry.now += 24.0
    assert admission.caller_of(f"Bearer {token.text}", HOME) is not None
    registry.now += 1.0
    for header in (f"Bearer {token.text}", f"Bearer {registry.make().text}", basic(token.text)):
        with pytest.raises(invoke.Unanswered):
            admission.caller_of(header, HOME)
    # Nobody was wrong.
    assert limits._wrong == {}
    assert admission.caller_of(basic("password"), HOME) == ADMINISTRATOR
    registry.is_away = False
    assert admission.caller_of(f"Bearer {token.text}", HOME) is not None


def test_the_answers_are_bounded_and_the_oldest_go(registry, monkeypatch):
    monkeypatch.setattr(admission, "MAX_ANSWERS", 2)
    first, second, third = (f"Bearer {registry.make().text}" for _ in range(3))
    for header in (first, second, third):
        admission.caller_of(header, HOME)
    assert len(registry.asked) == 3
    for header, asked in ((third, 3), (second, 3), (first, 4)):
        admission.caller_of(header, HOME)
        assert len(registry.asked) == asked


def test_what_was_asked_again_is_the_newest_again(registry, monkeypatch):
    monkeypatch.setattr(admission, "MAX_ANSWERS", 2)
    first, second, third = (f"Bearer {registry.make().text}" for _ in range(3))
    for header in (first, second):
        admission.caller_of(header, HOME)
    registry.now += 30.0
    for header in (first, third, first):
        admission.caller_of(header, HOME)
    assert len(registry.asked) == 4


def test_without_a_configured_password_a_token_still_counts(registry, monkeypatch):
    monkeypatch.delenv("REGISTRY_PASSWORD")
    assert admission.caller_of(f"Bearer {registry.make().text}", HOME) is not None
    assert admission.caller_of(basic(registry.make().text), HOME) is not None
    with pytest.raises(auth.NotConfigured):
        admission.caller_of(basic("password"), HOME)


def test_who_is_wrong_too_often_may_guess_no_password_but_what_nobody_can_guess_is_looked_at(registry):
    token, other = registry.make(), registry.make()
    assert admission.caller_of(f"Bearer {token.text}", HOME) is not None
    for number in range(limits.WRONG_A_MINUTE):
        assert admission.caller_of(basic(f"wrong {number}"), HOME) is None
    for header in (basic("password"), basic("wrong")):
        with pytest.raises(admission.Unauthorized, match=r"^Unauthorized$"):
            admission.caller_of(header, HOME)
    assert admission.caller_of(f"Bearer {token.text}", HOME) is not None
    # New ones too: others behind the same address are not shut out, and what is wrong goes on being counted.
    assert admission.caller_of(f"Bearer {other.text}", HOME) is not None
    assert admission.caller_of(basic(registry.make().text), HOME) is not None
    assert admission.caller_of("Bearer x", HOME) is None
    assert admission.caller_of(basic("password"), "192.0.2.2") == ADMINISTRATOR
    # It was right there, so that it is looked at here, in whatever case the scheme is.
    for header in (basic("password"), basic("password").replace("Basic", "bASIC")):
        assert admission.caller_of(header, HOME) == ADMINISTRATOR
    registry.now += limits.MINUTE
    assert admission.caller_of(f"Bearer {other.text}", HOME) is not None


def test_whoever_deploys_says_whom_administrators_may_trust(registry, monkeypatch):
    named, other = "https://9.9.9.9/issuer", "https://9.9.9.10/issuer"
    sent = {"audience": "us", "claims": {"sub": "x"}, "team": "payments", "role": "publisher"}
    key = issuer.Key.of("ES256")
    signed = issuer.token({"iss": other, "aud": "us", "sub": "x", "exp": registry.now + 300}, key)
    for trusted in (named, f"https://a.example,{named}"):
        monkeypatch.setenv("TRUSTED_ISSUERS", trusted)
        assert admission.caller_of(f"Bearer {signed}", HOME) is None
        assert registry.asked == []  # nobody is asked about others
        with pytest.raises(ValidationFailed) as refused:
            rules.parse_trust({**sent, "issuer": other})
        assert [(fault.path, fault.type) for fault in refused.value.faults] == [("issuer", "blocked")]
        assert auth.trusts(named)
    monkeypatch.setenv("TRUSTED_ISSUERS", "")
    assert auth.trusts(named) and auth.trusts(other)
