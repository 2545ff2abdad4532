"""Tokens of issuers: whose are believed, when, and by which key; and what an issuer can do to us.

The issuers are real HTTP servers with real keys (tests/issuer.py). Moments are told, so that no test waits for one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec

from local.run import LOOPBACK
from mcp_registry.access import issuers
from mcp_registry.access.issuers import IssuerAway, Refused, Rule, Verified, Verifier
from mcp_registry.dial import exchange, guard, lookup
from tests import issuer as played
from tests.issuer import DISCOVERY, JWKS, Answer, Issuer, Key, Server, as_json, encode

NOW = 1_800_000_000
AUDIENCE = "https://registry.example"
MINUTE, DAY = 60, 86_400
HOUR = 60 * MINUTE
FETCH_SECONDS = issuers.FETCH_SECONDS
CLAIMS = {"aud": AUDIENCE, "sub": "repo:acme/tools:ref:refs/heads/main", "repository": "acme/tools"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as started:
        yield started


@pytest.fixture(autouse=True)
def patient_on_the_loopback(monkeypatch) -> None:
    monkeypatch.setenv(guard.OPEN, LOOPBACK)
    # On a busy machine a fetch may take longer than is promised.
    monkeypatch.setattr(issuers, "FETCH_SECONDS", 60.0)
    monkeypatch.delenv(guard.CLOSED, raising=False)


@pytest.fixture
def issuer(server, request) -> Issuer:
    """An issuer that nobody has asked yet."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    return server.issuer(name, Key.of("RS256"))


class Registry:
    """A verifier with the rules that it is told, which counts who asks for them."""

    def __init__(self, *rules: Rule) -> None:
        self.verifier = Verifier()
        self.rules: list[Rule] = list(rules)
        self.asked: list[str] = []

    def rules_of(self, issuer: str) -> list[Rule]:
        self.asked.append(issuer)
        return self.rules

    def verify(self, token: str, now: float = NOW) -> Verified:
        return self.verifier.verify(token, self.rules_of, now)

    def refused(self, token: str, now: float = NOW) -> str:
        """Why a token is refused; nothing of it is told."""
        with pytest.raises(Refused) as caught:
            self.verify(token, now)
        told = str(caught.value)
        assert not any(part in told for part in token.split(".") if len(part) > 5)
        return told


def rule(
    id_: str = "ci", audience: str = AUDIENCE, role: str = "publisher", team: str = "tools", **claims: str
) -> Rule:
    return Rule(id_, audience, claims or {"repository": "acme/tools"}, role, team)


@pytest.fixture
def registry() -> Registry:
    return Registry(rule())


def claims(**changed: Any) -> dict[str, Any]:
    """Claims of a token of five minutes from NOW; one that is None is left out."""
    told = {**CLAIMS, "iat": NOW, "nbf": NOW, "exp": NOW + 5 * MINUTE, **changed}
    return {name: value for name, value in told.items() if value is not None}


# ------------------------------------------------------------------ a token that is true


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384"])
def test_a_token_by_a_key_of_its_issuer_is_believed(algorithm, issuer, registry):
    issuer.keys = [Key.of(algorithm, 7), Key.of("RS256"), Key.of("ES256"), Key.of("ES384")]
    verified = registry.verify(issuer.sign(claims()))
    assert verified.rule == rule()
    assert verified.claims["sub"] == CLAIMS["sub"]
    assert verified.name == f"oidc:ci:{CLAIMS['sub']}"
    assert verified.expires_at == NOW + 5 * MINUTE
    assert registry.asked == [issuer.url]
    assert issuer.asked == [DISCOVERY, JWKS]


def test_nothing_is_fetched_for_an_issuer_without_a_rule(issuer):
    registry = Registry()
    assert registry.refused(issuer.sign(claims())) == "Its issuer is not trusted"
    assert issuer.asked == []


def test_the_callers_of_two_long_subjects_have_two_names(issuer, registry):
    edge = 600 - len("oidc:ci:")
    names = [registry.verify(issuer.sign(claims(sub="a" * edge + end))).name for end in ("", "b", "c")]
    assert names[0] == "oidc:ci:" + "a" * edge
    assert [len(name) for name in names] == [600, 600, 600]
    assert len({*names}) == 3
    assert names[1].startswith("oidc:ci:aaa") and names[1][535:536] == "~"
    assert names[1][536:] == hashlib.sha256(("oidc:ci:" + "a" * edge + "b").encode()).hexdigest()


# ------------------------------------------------------------------ its times

LATER = "It is not valid yet: the clock of its issuer or of the registry is wrong"


@pytest.mark.parametrize(
    ("changed", "at", "why"),
    [
        ({}, NOW + 5 * MINUTE + 59, None),  # a minute of leeway
        ({}, NOW + 6 * MINUTE, "It has expired"),
        ({"nbf": NOW + 60}, NOW, None),
        ({"nbf": NOW + 61}, NOW, LATER),
        ({"iat": NOW + 60}, NOW, None),
        ({"iat": NOW + 61}, NOW, LATER),
        # Our clock, or theirs, is wrong by two minutes, in either direction.
        ({}, NOW - 2 * MINUTE, LATER),
        ({"exp": NOW + 30}, NOW + 2 * MINUTE, "It has expired"),
        ({"iat": None, "nbf": None}, NOW - DAY, None),
        ({"exp": None}, NOW, "It never expires"),
        ({"exp": NOW + 0.5}, NOW, None),
        ({"exp": 0, "iat": 0, "nbf": 0}, 59, None),
        ({"exp": 253_402_300_799}, NOW, None),
        ({"exp": 253_402_300_800}, NOW, "Its exp is no time"),
        ({"exp": float("inf")}, NOW, "A part of it is no JSON object"),
        ({"exp": str(NOW + 60)}, NOW, "Its exp is no time"),
        ({"exp": True}, NOW, "Its exp is no time"),
        ({"exp": [NOW + 60]}, NOW, "Its exp is no time"),
        ({"nbf": -1}, NOW, "Its nbf is no time"),
        ({"iat": "now"}, NOW, "Its iat is no time"),
    ],
)
def test_a_token_is_valid_between_its_times_with_a_minute_of_leeway(changed, at, why, issuer, registry):
    token = issuer.sign(claims(**changed))
    if why is None:
        assert registry.verify(token, at).rule.id == "ci"
    else:
        assert registry.refused(token, at) == why


def test_a_number_beyond_all_numbers_is_no_time(issuer, registry):
    told = json.dumps({"iss": issuer.url, **claims()}).replace(str(NOW + 5 * MINUTE), "1e400")
    assert registry.refused(signed(issuer.keys[0], told.encode())) == "Its exp is no time"


# ------------------------------------------------------------------ audience, subject, issuer


@pytest.mark.parametrize(
    ("audience", "is_ours"),
    [
        (AUDIENCE, True),
        (["https://other.example", AUDIENCE], True),
        ("https://other.example", False),
        (AUDIENCE + "/", False),
        (AUDIENCE.upper(), False),
        ([], False),
        ([[AUDIENCE]], False),
        ({"is": AUDIENCE}, False),
        (None, False),
        (1, False),
    ],
)
def test_a_token_is_for_this_registry_or_for_none(audience, is_ours, issuer, registry):
    token = issuer.sign(claims(aud=audience))
    if is_ours:
        assert registry.verify(token).rule.id == "ci"
    else:
        assert registry.refused(token) == "It is for another audience"


@pytest.mark.parametrize(
    "subject", [None, "", 7, True, ["a"], {"a": 1}, "a\nb", "a\0", "a\u202eb", "\ud800", "a\x1b[2J", "a\u200b"]
)
def test_a_subject_is_text_that_a_log_can_have(subject, issuer, registry):
    why = "Its subject is no text, or one with characters that nobody sees"
    assert registry.refused(issuer.sign(claims(sub=subject))) == why


@pytest.mark.parametrize(
    "told",
    [
        *(None, 7, "", "acme", "//issuer.example", "ftp://issuer.example", "https://", "https://a b"),
        *("https://issuer.example?a=1", "https://issuer.example#a", "https://user@issuer.example", "https://a/../b"),
        *("https://issuer.example/\r\nHost: other", "https://issuer.example/" + "a" * 478, ["https://issuer.example"]),
    ],
)
def test_an_issuer_is_an_address_or_nobody_is_asked_about_it(told, issuer, registry):
    token = played.token({**claims(), **({} if told is None else {"iss": told})}, issuer.keys[0])
    assert registry.refused(token) == "Its issuer is no address"
    assert registry.asked == []


def test_an_issuer_of_as_many_characters_as_the_table_takes_is_asked_about():
    registry = Registry()
    token = played.token({**claims(), "iss": "https://issuer.example/" + "a" * 477}, Key.of("RS256"))
    assert registry.refused(token) == "Its issuer is not trusted"


# ------------------------------------------------------------------ its form


def signed(key: Key, payload: bytes, header: bytes | None = None) -> str:
    """A token with these bytes in it, whatever they are."""
    head = header or json.dumps({"alg": key.algorithm, "kid": key.kid}).encode()
    message = f"{encode(head)}.{encode(payload)}"
    return f"{message}.{encode(key.signature(message.encode()))}"


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b'"a"', b"7", b"null", b"{", b"\xff{}", b'{"exp": NaN}', b"[" * 2_000, b"{}{}", b"9" * 5_000],
)
def test_a_part_that_is_no_json_object_is_refused(payload, issuer, registry):
    why = "It is no signed" if not payload else "A part of it is no JSON object"
    assert registry.refused(signed(issuer.keys[0], payload)).startswith(why)
    whole = json.dumps({"iss": issuer.url, **claims()}).encode()
    if payload:
        assert registry.refused(signed(issuer.keys[0], whole, payload)) == "A part of it is no JSON object"
    assert issuer.asked == registry.asked == []


@pytest.mark.parametrize(
    "broken",
    [
        *("", ".", "..", "a", "a.b", "a.b.c.d", "a.b.c.d.e", ".b.c", "a..c", "a.b."),
        *("a.b.c=", "a.b.c\n", " a.b.c", "a.b.+/", "ä.b.c", "a.b.c\0"),
    ],
)
def test_what_has_not_the_form_of_a_token_is_refused(broken, registry):
    assert registry.refused(broken) == "It is no signed JSON Web Token, or a very long one"


def test_a_token_may_have_eight_kilobytes_and_no_more(issuer, registry):
    lengths = {}
    spare = (8_192 - len(issuer.sign(claims(more="")))) * 3 // 4
    for length in range(spare - 3, spare + 4):
        token = issuer.sign(claims(more="a" * length))
        try:
            registry.verify(token)
            lengths[len(token)] = True
        except Refused:
            lengths[len(token)] = False
    assert max(length for length, is_read in lengths.items() if is_read) in (8_191, 8_192)
    assert min(length for length, is_read in lengths.items() if not is_read) in (8_193, 8_194)


def test_a_signature_that_was_changed_or_is_of_other_claims_is_refused(issuer, registry):
    head, payload, signature = issuer.sign(claims()).split(".")
    other = issuer.sign(claims(sub="mallory")).split(".")[1]
    changed = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    for token in (f"{head}.{other}.{signature}", f"{head}.{payload}.{changed}", f"{head}.{payload}.{signature[:-4]}"):
        assert registry.refused(token) == "Its signature is not by the key of its issuer"


# ------------------------------------------------------------------ algorithms and headers


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "HS256", "HS512", "RS512", "PS256", "ES512", "ES256K", "EdDSA", "rs256"]
)
def test_no_other_algorithm_is_taken_whatever_the_signature(algorithm, issuer, registry):
    for sign in (lambda _: b"", issuer.keys[0].signature):
        token = issuer.sign(claims(), alg=algorithm, sign=sign)
        assert registry.refused(token).startswith(("Its algorithm is none of", "It is no signed"))
    assert issuer.asked == registry.asked == []


@pytest.mark.parametrize("algorithm", [None, 7, ["RS256"], {"RS256": 1}, True])
def test_an_algorithm_is_a_text(algorithm, issuer, registry):
    key = issuer.keys[0]
    assert registry.refused(issuer.sign(claims(), alg=algorithm)) == "Its algorithm is none of RS256, ES256 and ES384"
    assert key.algorithm == "RS256"


def test_a_public_key_is_no_secret_of_an_hmac(issuer, registry):
    def sign(message: bytes) -> bytes:
        return hmac.new(issuer.keys[0].pem(), message, hashlib.sha256).digest()

    assert registry.refused(issuer.sign(claims(), alg="HS256", sign=sign)).startswith("Its algorithm is none of")
    # Nor where it says that it is of the right algorithm.
    assert registry.refused(issuer.sign(claims(), sign=sign)).startswith("Its signature is not by")


@pytest.mark.parametrize(("wanted", "others"), [("RS256", "ES256"), ("ES256", "RS256"), ("ES384", "ES256")])
def test_a_key_is_used_for_its_own_algorithm_only(wanted, others, issuer, registry):
    issuer.keys = [Key.of(others)]
    token = issuer.sign(claims(), alg=wanted)
    assert registry.refused(token) == f"It names no key that {issuer.url} has for it"


@pytest.mark.parametrize("algorithm", ["ES256", "ES384"])
def test_a_signature_of_an_elliptic_curve_has_the_form_of_tokens_and_not_der(algorithm, issuer, registry):
    issuer.keys = [Key.of(algorithm)]
    key = issuer.keys[0]
    token = issuer.sign(claims(), sign=lambda message: key.signature(message, der=True))
    assert registry.refused(token) == "Its signature is not by the key of its issuer"
    assert registry.refused(issuer.sign(claims(), sign=lambda _: bytes(64))).startswith("Its signature")


def test_keys_and_addresses_in_a_header_are_not_read(server, issuer, registry):
    mallory = server.issuer("mallory", Key.of("RS256", 66))
    key = mallory.keys[0]
    elsewhere = mallory.url + JWKS
    certificate = encode(b"certificate")
    for header in ({"jwk": key.jwk()}, {"jku": elsewhere}, {"x5u": elsewhere}, {"x5c": [certificate], "x5t": "a"}):
        # By a key that the header brings, under the name of one that the issuer has.
        forged = issuer.sign(claims(), key, kid=issuer.keys[0].kid, **header)
        assert registry.refused(forged) == "Its signature is not by the key of its issuer"
        assert registry.verify(issuer.sign(claims(), **header)).rule.id == "ci"
    assert mallory.asked == []


@pytest.mark.parametrize("crit", [[], ["exp"], ["b64"], None, "exp", {}])
def test_a_header_that_asks_for_an_extension_is_refused(crit, issuer, registry):
    head = json.dumps({"alg": "RS256", "kid": issuer.keys[0].kid, "crit": crit, "exp": 1, "b64": True}).encode()
    whole = json.dumps({"iss": issuer.url, **claims()}).encode()
    assert registry.refused(signed(issuer.keys[0], whole, head)) == "Its header asks for an extension"
    assert registry.asked == []


def test_a_payload_that_is_not_encoded_is_refused(issuer, registry):
    assert registry.refused(issuer.sign(claims(), b64=False)).startswith("Its signature is not by")


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/jwt", "application/at+jwt", None])
def test_a_token_of_identity_or_of_access_is_taken(kind, issuer, registry):
    assert registry.verify(issuer.sign(claims(), typ=kind)).rule.id == "ci"


@pytest.mark.parametrize("kind", ["logout+jwt", "secevent+jwt", "dpop+jwt", "JOSE", "", 7, ["JWT"]])
def test_a_token_of_another_kind_is_refused(kind, issuer, registry):
    assert registry.refused(issuer.sign(claims(), typ=kind)) == "It is a token of another kind"
    assert registry.asked == []


# ------------------------------------------------------------------ names of keys


@pytest.mark.parametrize(
    "kid",
    [
        *(
            "other",
            "",
            "../../../../dev/null",
            "/etc/passwd",
            "file:///dev/null",
            "' OR 1=1 --",
            "rs256-0\0",
            "RS256-0",
        ),
        *("http://169.254.169.254/", "rs256-0 ", "a" * 256),
    ],
)
def test_the_name_of_a_key_is_compared_and_nothing_else(kid, issuer, registry):
    assert registry.refused(issuer.sign(claims(), kid=kid)).startswith("It names no key that")
    assert issuer.asked == [DISCOVERY, JWKS]


@pytest.mark.parametrize("kid", [7, True, ["rs256-0"], {"a": 1}, "a" * 257])
def test_a_name_of_a_key_that_is_none_is_refused(kid, issuer, registry):
    assert registry.refused(issuer.sign(claims(), kid=kid)) == "Its key has no valid name"
    assert issuer.asked == registry.asked == []


def test_a_token_may_leave_its_key_out_where_the_issuer_has_only_one(issuer, registry):
    assert registry.verify(issuer.sign(claims(), kid=None)).rule.id == "ci"
    issuer.keys = [Key.of("RS256"), Key.of("ES256")]
    two = Registry(rule())
    assert two.refused(issuer.sign(claims(), kid=None)).startswith("It names no key that")
    nameless = Key(None, "RS256", Key.of("RS256").private)
    issuer.keys = [nameless]
    assert Registry(rule()).verify(issuer.sign(claims())).rule.id == "ci"
    issuer.keys = [nameless, Key.of("RS256", 1)]
    assert Registry(rule()).refused(issuer.sign(claims())).startswith("It names no key that")


def test_the_only_key_is_for_its_own_algorithm_all_the_same(issuer, registry):
    token = issuer.sign(claims(), kid=None)
    issuer.keys = [Key.of("ES256")]
    assert registry.refused(token) == f"It names no key that {issuer.url} has for it"


def test_a_key_without_a_name_is_not_the_one_that_a_token_names(issuer, registry):
    issuer.keys = [Key(None, "RS256", Key.of("RS256").private)]
    assert registry.refused(issuer.sign(claims(), kid="rs256-0")).startswith("It names no key that")


# ------------------------------------------------------------------ keys that are none


def keys_of(issuer: Issuer, *members: Any) -> None:
    issuer.instead[JWKS] = as_json({"keys": [*members]})


def member(kind: str, **changed: Any) -> dict[str, Any]:
    """A member of a set of keys, of a kind of ours unless it is changed."""
    if kind == "P-521":
        public = ec.generate_private_key(ec.SECP521R1()).public_key().public_numbers()
        own = {"kty": "EC", "crv": kind, "x": played.number(public.x, 66), "y": played.number(public.y, 66)}
    else:
        own = Key.of(kind, 0, "x").jwk()
    return {name: value for name, value in {**own, **changed}.items() if value is not None}


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("P-521", {}),
        ("ES256", {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA"}),
        ("ES256", {"kty": "oct", "k": "AAAA", "alg": None}),
        *(("RS256", {"alg": name}) for name in ("RS512", "PS256", "RSA-OAEP", "ES256", 7)),
        *(("RS256", {"use": "enc"}), ("RS256", {"use": 7}), ("RS256", {"key_ops": ["sign"]})),
        *(("RS256", {"key_ops": "verify"}), ("RS256", {"key_ops": []}), ("RS256", {"kid": 7})),
        *(("RS256", {"kid": ["x"]}), ("RS256", {"kty": 7}), ("RS256", {"kty": "rsa"}), ("RS256", {"kty": "EC"})),
        *(("RS256", {"n": text}) for text in (None, 7, "", "AQ==", "A!", "AA")),
        *(("RS256", {"e": text}) for text in (None, 7, "", "AA", "Ag")),
        *(("RS256", {"d": "AQAB"}), ("ES256", {"d": "AQAB"})),
        *(("ES256", {"crv": name}) for name in (None, "P-384", "p-256", ["P-256"], "secp256k1")),
        *(("ES256", {"x": text}) for text in (None, 7, "AA", "A" * 43)),
        *(("ES256", {"y": text}) for text in (None, 7, "AA", "A" * 43)),
        *(("ES256", {"alg": "ES384"}), ("ES256", {"kty": "RSA"}), ("ES384", {"crv": "P-256"})),
    ],
    ids=str,
)
def test_a_key_that_is_not_for_us_or_not_valid_is_none(kind, changed):
    # Beside one that is right, which goes on being there.
    right = Key.of("RS256", 1)
    assert [*issuers.read_keys({"keys": [member(kind, **changed), right.jwk()]})] == [("rs256-1", "RS256")]
    with pytest.raises(issuers.Unusable, match=r"^it has no key for RS256, ES256 or ES384$"):
        issuers.read_keys({"keys": [member(kind, **changed)]})


@pytest.mark.parametrize("member", [7, None, [], "x", {}, {"kid": "x"}], ids=str)
def test_what_is_no_key_at_all_is_none(member, issuer, registry):
    keys_of(issuer, member, issuer.keys[0].jwk())
    assert registry.verify(issuer.sign(claims())).rule.id == "ci"
    assert registry.refused(issuer.sign(claims(), Key.of("RS256", 0, "x"))).startswith("It names no key that")


@pytest.mark.parametrize("more", [{"use": None}, {"alg": None}, {"key_ops": ["verify", "sign"]}, {"x5c": ["?"]}])
def test_a_key_may_leave_out_what_it_is_for(more, issuer, registry):
    keys_of(issuer, issuer.keys[0].jwk(**more))
    assert registry.verify(issuer.sign(claims())).rule.id == "ci"


@pytest.mark.parametrize(
    ("bits", "is_taken"),
    [(1_024, False), (2_047, False), (2_048, True), (4_096, True), (8_192, True), (8_193, False), (16_384, False)],
)
def test_a_key_of_rsa_is_neither_weak_nor_takes_longer_than_a_request(bits, is_taken):
    weighed = {"kty": "RSA", "kid": "x", "n": played.number((1 << (bits - 1)) + 1), "e": "AQAB"}
    found = issuers.read_keys({"keys": [weighed, Key.of("ES256").jwk()]})
    assert (("x", "RS256") in found) == is_taken


def test_a_token_by_a_weak_key_is_refused(issuer, registry):
    issuer.keys = [Key("weak", "RS256", played.private_key("RS256", 0, 1_024)), Key.of("ES256")]
    assert registry.refused(issuer.sign(claims())).startswith("It names no key that")


def test_two_keys_of_one_name_are_none_and_the_same_one_twice_is_one(issuer, registry):
    one, other = Key.of("RS256", 0, "x"), Key.of("RS256", 1, "x")
    beside = Key.of("ES256", 0, "x")  # RFC 7517, section 4.5: one name for keys of different kinds
    keys_of(issuer, one.jwk(), other.jwk(), one.jwk(), beside.jwk())
    assert registry.refused(issuer.sign(claims(), one)).startswith("It names no key that")
    assert registry.refused(issuer.sign(claims(), other)).startswith("It names no key that")
    assert registry.verify(issuer.sign(claims(), beside)).rule.id == "ci"
    keys_of(issuer, one.jwk(), one.jwk())
    assert Registry(rule()).verify(issuer.sign(claims(), one)).rule.id == "ci"
    keys_of(issuer, one.jwk(), other.jwk())
    with pytest.raises(IssuerAway, match="it has no key for"):
        Registry(rule()).verify(issuer.sign(claims(), one))


@pytest.mark.parametrize("count", [100, 101])
def test_a_set_has_at_most_a_hundred_keys(count, issuer, registry):
    keys_of(issuer, issuer.keys[0].jwk(), *[{}] * (count - 1))
    if count == 100:
        assert registry.verify(issuer.sign(claims())).rule.id == "ci"
        return
    with pytest.raises(
        IssuerAway, match=r"cannot be had: what it has for keys is no set of them, or a very large one$"
    ):
        registry.verify(issuer.sign(claims()))


# ------------------------------------------------------------------ rotation, and an issuer that is away


def test_a_new_key_is_fetched_when_a_token_names_it_and_at_most_every_half_minute(issuer, registry):
    registry.verify(issuer.sign(claims()))
    issuer.rotate()
    # A token by it comes before half a minute is over: nobody knows that name yet.
    new = issuer.sign(claims())
    assert registry.refused(new, NOW + 29).startswith("It names no key that")
    assert len(issuer.asked) == 2
    assert registry.verify(new, NOW + 30).rule.id == "ci"
    assert len(issuer.asked) == 4
    # Names that nobody has do not make us ask more often.
    for second in range(1, 30):
        assert registry.refused(issuer.sign(claims(), kid=f"x{second}"), NOW + 30 + second).startswith("It names no")
    assert len(issuer.asked) == 4
    # The one before is there for as long as the issuer says so.
    assert registry.verify(issuer.sign(claims(sub="b"), issuer.keys[1]), NOW + 40).rule.id == "ci"


def test_keys_are_fetched_again_after_an_hour_and_one_that_was_withdrawn_ends(issuer, registry):
    def at(seconds: int) -> str:
        moment = NOW + seconds
        return issuer.sign(claims(iat=moment, nbf=moment, exp=moment + 60), first)

    first = issuer.keys[0]
    registry.verify(at(0))
    issuer.rotate(keep=False)
    assert registry.verify(at(HOUR - 1), NOW + HOUR - 1).rule.id == "ci"
    assert len(issuer.asked) == 2
    assert registry.refused(at(HOUR), NOW + HOUR).startswith("It names no key that")
    assert len(issuer.asked) == 4


def test_an_issuer_that_is_away_is_believed_by_its_last_keys_for_a_day(issuer, registry):
    def verify(seconds: int) -> str:
        moment = NOW + seconds
        return registry.verify(issuer.sign(claims(iat=moment, nbf=moment, exp=moment + 60)), moment).rule.id

    verify(0)
    issuer.is_away = True
    assert verify(HOUR) == "ci"
    asked = len(issuer.asked)
    assert asked == 3
    assert verify(HOUR + 29) == "ci"
    assert len(issuer.asked) == asked  # as it was asked just now
    assert verify(DAY - 1) == "ci"
    with pytest.raises(IssuerAway, match="cannot be had: the connection was closed before an answer came"):
        verify(DAY)
    # A key that it may have had since is none that is known to be wrong.
    issuer.rotate()
    with pytest.raises(IssuerAway):
        verify(DAY + 40)
    issuer.is_away = False
    assert verify(DAY + 80) == "ci"
    assert registry.refused(issuer.sign(claims(exp=NOW + DAY + 200), kid="x"), NOW + DAY + 81).startswith("It names")


def test_an_issuer_that_is_away_and_unknown_is_asked_again_soon_and_then_less_often(issuer, registry):
    issuer.is_away = True
    token = issuer.sign(claims())
    for second, asked in ((0, 1), (4, 1), (5, 2), (14, 2), (15, 3), (34, 3), (35, 4), (64, 4), (65, 5), (95, 6)):
        with pytest.raises(IssuerAway):
            registry.verify(token, NOW + second)
        assert len(issuer.asked) == asked
    issuer.is_away = False
    with pytest.raises(IssuerAway):
        registry.verify(token, NOW + 124)
    assert registry.verify(token, NOW + 125).rule.id == "ci"


def test_made_up_tokens_of_an_issuer_that_is_away_have_few_requests_wait(issuer, registry):
    issuer.is_away = True
    for second in range(600):
        with pytest.raises(IssuerAway):
            registry.verify(issuer.sign(claims(jti=second), Key.of("RS256", 66)), NOW + second)
    assert len(issuer.asked) == 22


def test_a_new_key_of_an_issuer_that_is_away_cannot_be_judged(issuer, registry):
    registry.verify(issuer.sign(claims()))
    issuer.rotate()
    issuer.is_away = True
    with pytest.raises(IssuerAway):
        registry.verify(issuer.sign(claims()), NOW + 40)
    assert registry.verify(issuer.sign(claims(sub="b"), issuer.keys[1]), NOW + 41).rule.id == "ci"


def test_a_clock_that_is_set_back_does_not_keep_keys_for_longer(issuer, registry):
    registry.verify(issuer.sign(claims()))
    back = NOW - 2 * HOUR
    registry.verify(issuer.sign(claims(iat=back, nbf=back)), back)
    assert len(issuer.asked) == 4


def test_an_issuer_that_is_slow_is_waited_for_two_seconds_and_no_longer(issuer, registry, monkeypatch):
    assert FETCH_SECONDS == 2.0  # which this test does not wait for
    monkeypatch.setattr(issuers, "FETCH_SECONDS", 0.2)
    issuer.seconds = 30
    with pytest.raises(IssuerAway, match=r"cannot be had: it did not answer within 0\.2 s$"):
        registry.verify(issuer.sign(claims()))


def test_a_thousand_starts_at_once_are_one_fetch(issuer, registry):
    tokens = [issuer.sign(claims(jti=number)) for number in range(20)]
    issuer.seconds = 0.05  # so that all of them come while it is under way
    ready, told = threading.Barrier(100), []

    def start(number: int) -> None:
        ready.wait()
        own = (tokens[(number + each) % 20] for each in range(10))
        told.extend([registry.verify(token, NOW + number / 1_000).rule.id for token in own])

    threads = [threading.Thread(target=start, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["ci"] * 1_000
    assert issuer.asked == [DISCOVERY, JWKS]


def test_the_keys_of_so_many_issuers_are_kept_and_who_was_not_asked_for_longest_makes_room(
    server, registry, monkeypatch
):
    monkeypatch.setattr(issuers, "MAX_ISSUERS", 3)
    every = [server.issuer(f"many-{number}", Key.of("RS256")) for number in range(4)]

    def asked(number: int) -> int:
        registry.verify(every[number].sign(claims(jti=time.monotonic_ns())))
        return len(every[number].asked)

    assert [asked(number) for number in (0, 1, 2)] == [2, 2, 2]
    assert asked(0) == 2
    assert asked(3) == 2  # for which the second made room
    assert [asked(number) for number in (0, 2, 3)] == [2, 2, 2]
    assert asked(1) == 4


# ------------------------------------------------------------------ an issuer that means ill


HTML = Answer(200, b"<!DOCTYPE html><html><body>Sign in</body></html>", (("Content-Type", "text/html"),))
LARGE = Answer(200, b'{"keys": [' + b"{}, " * 20_000 + b"{}]}")
NO_OBJECT = "its answer is no JSON object, or longer than 64 KiB"
NO_SET = "what it has for keys is no set of them, or a very large one"
NO_KEY = "it has no key for RS256, ES256 or ES384"
ANOTHER = "its discovery document is of another issuer"


def leads_to(url: str, status: int = 302) -> Answer:
    return Answer(status, b"", (("Location", url),))


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        (DISCOVERY, HTML, NO_OBJECT),
        (JWKS, HTML, NO_OBJECT),
        (DISCOVERY, LARGE, NO_OBJECT),
        (JWKS, LARGE, NO_OBJECT),
        (DISCOVERY, as_json([]), NO_OBJECT),
        (JWKS, as_json([]), NO_OBJECT),
        (JWKS, Answer(200, b"[" * 60_000), NO_OBJECT),
        (JWKS, as_json({"keys": {}}), NO_SET),
        (JWKS, as_json({"keys": None}), NO_SET),
        (JWKS, as_json({}), NO_SET),
        (JWKS, as_json({"keys": []}), NO_KEY),
        (DISCOVERY, as_json({}, 503), "it answered 503"),
        (JWKS, as_json({"keys": [Key.of("RS256").jwk()]}, 404), "it answered 404"),
        (JWKS, as_json({"keys": [Key.of("RS256").jwk()]}, 203), "it answered 203"),
        (DISCOVERY, leads_to("https://other.example/"), "it answered 302"),
        (DISCOVERY, leads_to(DISCOVERY, 308), "it answered 308"),
        (JWKS, leads_to("/aws/.well-known/jwks.json", 307), "it answered 307"),
        (DISCOVERY, as_json({"issuer": "https://other.example"}), ANOTHER),
        (DISCOVERY, as_json({"jwks_uri": "https://other.example"}), ANOTHER),
        (DISCOVERY, as_json({"issuer": ["https://other.example"]}), ANOTHER),
    ],
    # A key is another one in each process, and a test has one name in all of them.
    ids=lambda value: f"{value.status} {value.body[:20]!r}" if isinstance(value, Answer) else str(value),
)
def test_an_issuer_that_answers_something_else_has_no_keys(path, answer, why, issuer, registry):
    issuer.instead[path] = answer
    with pytest.raises(IssuerAway) as caught:
        registry.verify(issuer.sign(claims()))
    assert str(caught.value) == f"The keys of {issuer.url} cannot be had: {why}"


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "what answers there is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "the headers of the answer are longer than 64 KiB"),
        (b"HTTP/1.1 200 OK\r\n", "the connection was closed before an answer came"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"issuer":', "its answer is no JSON object"),
    ],
)
def test_what_answers_with_something_else_than_http_has_no_keys(mode, why, registry):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1_024)
                connection.sendall(mode)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(IssuerAway, match=why):
            registry.verify(played.token({"iss": url, **claims()}, Key.of("RS256")))
        thread.join()


NO_ADDRESS = "the address of its keys is none"
NO_TLS = "its keys are not asked for without TLS"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        *((text, NO_ADDRESS) for text in (None, 7, "", "/.well-known/jwks.json", "file:///etc/passwd")),
        *((text, NO_ADDRESS) for text in ("https://10.0.0.1/" + "a" * 2_032, "http://127.0.0.1:1@169.254.169.254/")),
        *((text, NO_TLS) for text in ("http://keys.example/jwks", "http://203.0.113.7/jwks")),
        ("https://10.0.0.1/" + "a" * 2_031, "the host is a private address"),
        ("https://169.254.169.254/latest", "the host is a link-local address, where cloud metadata lives"),
        ("https://[::ffff:10.0.0.1]/jwks", "the host is an IPv4 address hidden in IPv6"),
        ("https://keys.example:5432/jwks", "port 5432 belongs to another protocol than MCP over HTTP"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_issuer_leads_us_nowhere_where_the_guard_would_not_let_us(address, why, issuer, registry):
    issuer.instead[DISCOVERY] = as_json({"issuer": issuer.url, "jwks_uri": address})
    with pytest.raises(IssuerAway) as caught:
        registry.verify(issuer.sign(claims()))
    told = str(caught.value).removesuffix(f"; the operator of this registry can open it with {guard.OPEN}")
    assert told == f"The keys of {issuer.url} cannot be had: {why}"


@pytest.fixture
def secure(tmp_path, monkeypatch) -> Iterator[Server]:
    """A server with TLS and a certificate for keys.example, a name that leads to the loopback, as does inside.example
    to an address that is closed.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setattr(exchange, "_context", None)
    (tmp_path / "hosts").write_text("127.0.0.1 keys.example\n10.0.0.1 inside.example\n")
    monkeypatch.setattr(lookup, "HOSTS", tmp_path / "hosts")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("keys.example").configure_cert(context)
    server = Server()
    server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
    server.url = server.url.replace("http://127.0.0.1", "https://keys.example")
    with server:
        yield server


def test_an_issuer_is_asked_by_its_name_over_tls(secure, registry):
    issuer = secure.issuer("named", Key.of("RS256"))
    assert registry.verify(issuer.sign(claims())).rule.id == "ci"
    assert issuer.asked == [DISCOVERY, JWKS]
    assert issuer.headers == {
        "Host": issuer.url.split("/")[2],
        "User-Agent": "mcp-registry",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def test_a_name_that_leads_to_a_closed_address_is_not_asked(secure, registry):
    issuer = secure.issuer("named", Key.of("RS256"))
    issuer.instead[DISCOVERY] = as_json({"issuer": issuer.url, "jwks_uri": "https://inside.example/jwks"})
    with pytest.raises(IssuerAway, match="cannot be had: the address is a private address"):
        registry.verify(issuer.sign(claims()))


def test_a_certificate_of_somebody_else_is_none(secure, registry, monkeypatch):
    monkeypatch.setattr(exchange, "_context", None)
    monkeypatch.delenv("SSL_CERT_FILE")
    issuer = secure.issuer("named", Key.of("RS256"))
    with pytest.raises(IssuerAway, match="cannot be had: the certificate's issuer is not known"):
        registry.verify(issuer.sign(claims()))
    assert issuer.asked == []


def test_keys_may_be_at_another_address_as_googles_are(server, issuer, registry):
    other = server.issuer("elsewhere", Key.of("ES256", 5))
    issuer.instead[DISCOVERY] = as_json({"issuer": issuer.url, "jwks_uri": other.url + JWKS})
    assert registry.verify(issuer.sign(claims(), other.keys[0])).rule.id == "ci"


def test_an_issuer_on_the_loopback_is_asked_only_where_the_guard_has_that_open(issuer, registry, monkeypatch):
    monkeypatch.setenv(guard.OPEN, "")
    with pytest.raises(IssuerAway, match="the host is the loopback"):
        registry.verify(issuer.sign(claims()))
    assert issuer.asked == []


def test_nobody_at_the_address_is_told_as_that(registry):
    with Server() as gone:
        issuer = gone.issuer("gone", Key.of("RS256"))
    with pytest.raises(IssuerAway, match="nothing listens there: the connection was refused"):
        registry.verify(issuer.sign(claims()))


def test_an_issuer_may_end_in_a_slash_as_that_of_entra_does(server, registry):
    issuer = server.issuer("slash", Key.of("RS256"))
    issuer.url += "/"
    issuer.instead[DISCOVERY] = as_json({"issuer": issuer.url, "jwks_uri": issuer.url + JWKS[1:]})
    assert registry.verify(issuer.sign(claims())).rule.id == "ci"
    assert issuer.asked == [DISCOVERY, JWKS]


# ------------------------------------------------------------------ rules


@pytest.mark.parametrize(
    ("pattern", "text", "is_meant"),
    [
        ("acme/tools", "acme/tools", True),
        ("acme/tools", "acme/Tools", False),
        ("acme/tools", "acme/tools2", False),
        ("acme/*", "acme/tools", True),
        ("acme/*", "acme/", True),
        ("acme/*", "acme", False),
        ("acme/*", "acme/tools/more", False),
        ("acme*", "acme/tools", False),
        ("acme*", "acme:tools", False),
        ("acme:tools", "acme/tools", False),
        ("*", "", True),
        ("*", "a", True),
        ("*", "a:b", False),
        ("", "", True),
        ("", "a", False),
        ("a", "", False),
        ("*/tools", "acme/tools", True),
        ("a*b", "ab", True),
        ("a*b", "a", False),
        ("a*b", "cb", False),
        ("acme-*", "other-tools", False),
        ("*a*a*", "a", False),
        ("a*a", "a", False),  # one letter is not both ends
        ("ab*bc", "abc", False),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "acb", False),
        ("a*b*b", "ab", False),
        ("a**c", "abc", True),
        ("a*bb*b", "abb", False),
        ("*b*", "abc", True),
        ("*b*", "ac", False),
        ("*a*b*", "aba", True),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/tools:ref:refs/heads/main", True),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/tools:environment:x:ref:refs/heads/main", False),
        ("repo:acme/*:ref:refs/heads/*", "repo:acme/tools:ref:refs/heads/a/b", False),
        ("arn:aws:iam::123456789012:role/mcp-*", "arn:aws:iam::123456789012:role/mcp-refunds", True),
        ("arn:aws:iam::*:role/mcp-*", "arn:aws:iam::210987654321:role/mcp-refunds", True),
        ("arn:aws:iam::123456789012:role/*", "arn:aws:iam::123456789012:role/path/mcp", False),
        ("a.c", "abc", False),
        ("a?c", "abc", False),
        ("[ab]", "a", False),
        ("a\\*", "a\\b", True),
    ],
)
def test_a_star_is_any_characters_but_a_slash_or_a_colon(pattern, text, is_meant):
    assert issuers.matches(pattern, text) == is_meant


def test_a_pattern_of_many_stars_takes_no_longer_than_one_of_none():
    # With a regular expression this would not end.
    assert not issuers.matches("*a" * 2_000 + "b", "a" * 8_000)


@pytest.mark.parametrize(
    ("pins", "told", "is_held"),
    [
        ({"a": "b"}, {"a": "b"}, True),
        ({"a": "b"}, {}, False),
        ({"a": "*"}, {}, False),
        ({"a": "*"}, {"a": None}, False),
        ({"a": "null"}, {"a": None}, False),
        ({"a": "b", "c": "d"}, {"a": "b"}, False),
        ({"a": "b", "c": "d"}, {"a": "b", "c": "d"}, True),
        ({"a": "true"}, {"a": True}, True),
        ({"a": "True"}, {"a": True}, False),
        ({"a": "false"}, {"a": False}, True),
        ({"a": "1"}, {"a": True}, False),
        ({"a": "12"}, {"a": 12}, True),
        ({"a": "12"}, {"a": "12"}, True),
        ({"a": "1.5"}, {"a": 1.5}, True),
        ({"a": "1"}, {"a": 1.5}, False),
        ({"a": "b"}, {"a": ["x", "b"]}, True),
        ({"a": "b"}, {"a": ["x"]}, False),
        ({"a": "b"}, {"a": []}, False),
        ({"a": "b"}, {"a": [["b"]]}, False),
        ({"a": "b"}, {"a": {"b": "b"}}, False),
        ({"a": "*"}, {"a": {"b": "b"}}, False),
        ({"groups": "mcp-*"}, {"groups": ["all", "mcp-admins"]}, True),
    ],
)
def test_every_claim_that_a_rule_pins_is_there_and_as_it_says(pins, told, is_held, issuer):
    registry = Registry(rule(**pins))
    token = issuer.sign({**claims(), **told})
    if is_held:
        assert registry.verify(token).rule.claims == pins
    else:
        assert registry.refused(token) == "Its claims hold no rule"


def test_a_rule_that_pins_nothing_trusts_nobody(issuer):
    registry = Registry(Rule("open", AUDIENCE, {}, "admin", "default"))
    assert registry.refused(issuer.sign(claims())) == "Its claims hold no rule"


def test_of_several_rules_that_hold_the_one_that_pins_most_is_taken_and_then_the_first_by_name(issuer):
    both = {"repository": "acme/tools", "sub": "repo:*/*:ref:refs/heads/main"}
    rules = [
        rule("c", repository="acme/tools"),
        rule("b", **both),
        rule("a", role="admin", repository="acme/*"),
        rule("d", audience="https://other.example", **both, aud="https://other.example"),
        rule("e", **both, ref="refs/heads/main"),
    ]
    registry = Registry(*rules)
    assert registry.verify(issuer.sign(claims())).rule.id == "b"
    registry.rules = [each for each in rules if each.id != "b"]
    assert registry.verify(issuer.sign(claims(jti="1"))).rule.id == "a"
    registry.rules.reverse()
    assert registry.verify(issuer.sign(claims(jti="2"))).rule.id == "a"
    assert registry.verify(issuer.sign(claims(ref="refs/heads/main"))).rule.id == "e"


# ------------------------------------------------------------------ what is remembered


def test_a_token_is_verified_once_in_25_seconds_and_its_rules_every_time(issuer, registry, monkeypatch):
    token = issuer.sign(claims())
    verify = registry.verifier._signatures.decode_complete
    verified: list[str] = []

    def counted(*given: Any, **named: Any) -> Any:
        verified.append(given[0])
        return verify(*given, **named)

    monkeypatch.setattr(registry.verifier._signatures, "decode_complete", counted)
    for second, count in ((0, 1), (0, 1), (24, 1), (25, 2), (49, 2), (50, 3)):
        assert registry.verify(token, NOW + second).claims["sub"] == CLAIMS["sub"]
        assert len(verified) == count
    # The clock was set back.
    registry.verify(token, NOW)
    assert len(verified) == 4
    # Who is no longer trusted is not so from when the rules say it.
    registry.rules = []
    assert registry.refused(token, NOW + 1) == "Its issuer is not trusted"
    registry.rules = [rule(repository="acme/other")]
    assert registry.refused(token, NOW + 1) == "Its claims hold no rule"
    registry.rules = [rule(audience="https://other.example")]
    assert registry.refused(token, NOW + 1) == "It is for another audience"
    assert {*registry.asked} == {issuer.url}


def test_a_token_is_not_remembered_beyond_its_end(issuer, registry):
    token = issuer.sign(claims(exp=NOW - 50))
    assert registry.verify(token, NOW).rule.id == "ci"
    assert registry.refused(token, NOW + 10) == "It has expired"
    token = issuer.sign(claims(exp=NOW + 5))
    assert registry.verify(token, NOW).rule.id == "ci"
    assert registry.refused(token, NOW + 65) == "It has expired"


def test_a_thousand_tokens_and_a_hundred_issuers_are_remembered(issuer, registry):
    issuer.keys = [Key.of("ES256")]
    for number in range(1_001):
        registry.verify(issuer.sign(claims(jti=number)))
    assert len(registry.verifier._remembered) == 1_000
    for number in range(101):
        registry.verifier._source(f"https://issuer.example/{number}")
    assert next(iter(registry.verifier._sources)) == "https://issuer.example/1"
    assert len(registry.verifier._sources) == 100


def test_the_registry_has_one_verifier_for_an_execution_environment(issuer):
    moment = time.time()
    token = issuer.sign(claims(iat=moment, nbf=moment, exp=moment + 60))
    for _ in range(2):
        assert issuers.verify(token, lambda _: [rule()], moment).rule.id == "ci"
    assert issuer.asked == [DISCOVERY, JWKS]


# ------------------------------------------------------------------ the issuers that are played


@pytest.fixture
def sts(server) -> Callable[..., Any]:
    """A client of boto3 for the STS that is played, as a role."""
    import boto3
    from botocore.config import Config

    def client(role: played.Role, **changed: Any) -> Any:
        named: dict[str, Any] = {
            "aws_access_key_id": role.access_key_id,
            "aws_secret_access_key": role.secret_access_key,
            "aws_session_token": role.session_token,
            **changed,
        }
        # What it would refuse itself is for STS to refuse.
        config = Config(parameter_validation=False)
        return boto3.client("sts", region_name=played.REGION, endpoint_url=server.url, config=config, **named)

    return client


@pytest.mark.parametrize("algorithm", ["RS256", "ES384"])
def test_a_role_of_aws_is_who_its_token_says(algorithm, server, sts):
    role = server.role("refunds-server")
    given = sts(role).get_web_identity_token(Audience=[AUDIENCE], SigningAlgorithm=algorithm, DurationSeconds=60)
    registry = Registry(rule(sub=f"arn:aws:iam::{played.ACCOUNT}:role/refunds-*"))
    verified = registry.verify(given["WebIdentityToken"], time.time())
    assert verified.name == f"oidc:ci:{role.arn}"
    assert verified.expires_at == given["Expiration"].timestamp()


def test_sts_gives_no_token_to_who_did_not_sign_and_says_so_as_aws_does(server, sts):
    from botocore.exceptions import ClientError

    def code(client: Any, **changed: Any) -> tuple[str, int]:
        with pytest.raises(ClientError) as caught:
            client.get_web_identity_token(**{"Audience": [AUDIENCE], "SigningAlgorithm": "RS256", **changed})
        told = cast("Any", caught.value.response)
        return told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"]

    role = server.role("signer")
    assert code(sts(role, aws_secret_access_key="other")) == ("SignatureDoesNotMatch", 403)
    assert code(sts(role, aws_session_token=None)) == ("InvalidClientTokenId", 403)
    assert code(sts(played.Role.of("stranger"))) == ("InvalidClientTokenId", 403)
    assert code(sts(role), SigningAlgorithm="HS256") == ("ValidationError", 400)
    assert code(sts(role), DurationSeconds=59) == ("ValidationError", 400)
    server.is_enabled = False
    try:
        assert code(sts(role)) == ("OutboundWebIdentityFederationDisabledException", 403)
    finally:
        server.is_enabled = True


def test_a_job_of_github_is_who_its_token_says(server):
    answer = server.give_github({"audience": [AUDIENCE]}, f"bearer {server.github_token}")
    token = json.loads(answer.body)["value"]
    pins = {"repository": "octo-org/octo-repo", "sub": "repo:octo-org/*:ref:refs/heads/main"}
    assert (
        Registry(rule(**pins)).verify(token, time.time()).name == "oidc:ci:repo:octo-org/octo-repo:ref:refs/heads/main"
    )
    assert server.give_github({}, "bearer other").status == 401


def test_a_token_is_made_as_its_specification_says():
    # RFC 7515, appendix C: base64url without padding.
    head, payload, _ = played.token({"a": "~~~"}, Key.of("ES256")).split(".")
    assert json.loads(base64.urlsafe_b64decode(head + "==")) == {"alg": "ES256", "kid": "es256-0", "typ": "JWT"}
    assert json.loads(base64.urlsafe_b64decode(payload + "==")) == {"a": "~~~"}
