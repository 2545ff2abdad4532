"""Tokens of trusted issuers: is this JSON Web Token true, and which rule of the registry's does it hold?

The owner of PyJWT, and loaded only where such a token comes: with cryptography it takes more than all else that the
authorizer does. Sources: RFC 7515 and 7519 (the token), RFC 7517 and 7518 (keys), RFC 8725 (what goes wrong with
them), OpenID Connect Discovery 1.0 (where the keys are).

Whom to trust is never read from a token. The issuer that it names is looked up in the registry's rules first, and
nothing is fetched for one without a rule. Of its header only `alg`, `kid` and `typ` mean something, and `crit` refuses
it; keys and addresses in it (`jwk`, `jku`, `x5c`, `x5u`) are not read. Which algorithm a key is for follows from the
key, so that no token can have it used for another.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from ipaddress import ip_address
from threading import Lock
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

import jwt
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from mcp_registry.dial import exchange, guard, reach, urls
from mcp_registry.dial.exchange import Dialler
from mcp_registry.dial.lookup import Names, System
from mcp_registry.dial.reach import Finding
from mcp_registry.dial.reply import Reply

ALGORITHMS: Final = ("RS256", "ES256", "ES384")
# By the curve of a key, as RFC 7518, section 3.4, has it.
CURVES: Final = {"P-256": "ES256", "P-384": "ES384"}
# Of an RSA key, in bits: what RFC 7518 asks for at least, and where a verification would take longer than a request.
MIN_BITS, MAX_BITS = 2_048, 8_192

# API Gateway takes headers of 10,240 bytes, all together.
MAX_TOKEN: Final = 8_192
MAX_KID: Final = 256
# Columns of the database: registry.issuers.issuer, and registry.audit.actor.
MAX_ISSUER: Final = 500
MAX_NAME: Final = 600
MAX_KEYS: Final = 100

# All times are in seconds. LEEWAY is what clocks may differ by.
LEEWAY: Final = 60
FETCH_SECONDS: Final = 2.0  # both documents, look-ups included
FRESH_SECONDS: Final = 3_600
STALE_SECONDS: Final = 86_400  # of an issuer that is away
# How often one issuer is asked: for a key that is not known, or again after a failure. Where nothing is known yet it is
# asked soon after a failure, and after each further one half as often: whoever sends made-up tokens of an issuer that
# is away, from however many addresses, has one request in 30 s wait for it.
AGAIN_SECONDS: Final = 30
SOON_SECONDS: Final = 5
REMEMBERED_SECONDS: Final = 25
MAX_REMEMBERED: Final = 1_000
MAX_ISSUERS: Final = 100
# 9999-12-31: a time beyond is none.
LAST_MOMENT: Final = 253_402_300_799

DISCOVERY: Final = "/.well-known/openid-configuration"
HEADERS: Final = "User-Agent: mcp-registry\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n"

FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
DIGITS: Final = re.compile(r"[A-Za-z0-9_-]+")
# Tokens of other kinds that the same issuer signs, such as the one of a logout, say so here (RFC 8725, section 3.11).
TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
SEPARATOR: Final = re.compile(r"([/:])")

Key: TypeAlias = Any  # of cryptography, RSAPublicKey or EllipticCurvePublicKey
# By name and algorithm. None: several keys have both, so that neither can be meant.
Keys: TypeAlias = dict[tuple[str | None, str], Key | None]


class Refused(Exception):
    """A token that says nothing: why, in one sentence for the log, in which nothing of the token stands."""


class IssuerAway(Exception):
    """A token that nobody can judge now, because the keys of its issuer cannot be had: why, in one sentence."""


class Rule(NamedTuple):
    """What the registry trusts: tokens of one issuer for this audience, in which each of `claims` is as it says.

    In the values of `claims` a star stands for any characters but a slash or a colon.
    """

    id: str
    audience: str
    claims: Mapping[str, str]
    role: str
    team: str


class Verified(NamedTuple):
    """A token that is true, and the rule that it holds."""

    rule: Rule
    claims: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the caller, `oidc:<id of the rule>:<subject>`, 600 characters at most.

        One that would be longer ends in the SHA-256 of the whole: two callers never have one name.
        """
        name = f"oidc:{self.rule.id}:{self.claims['sub']}"
        return name if len(name) <= MAX_NAME else name[: MAX_NAME - 65] + "~" + sha256(name.encode()).hexdigest()

    @property
    def expires_at(self) -> int:
        """When the token ends, in seconds since 1970."""
        return int(self.claims["exp"])


class Verifier:
    """Verifies tokens, and keeps the keys of their issuers."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sources: dict[str, Source] = {}
        # What was signed, by the digest of the token, and until when it is remembered. Rules are not: who is no longer
        # trusted is not so from when the rules say it.
        self._remembered: dict[bytes, tuple[dict[str, Any], float]] = {}
        self._signatures = jwt.PyJWS()

    def verify(self, token: str, rules_of: Callable[[str], Iterable[Rule]], now: float) -> Verified:
        """Verify a token and find the rule that it holds. `rules_of` knows the rules for an issuer; `now`: since 1970.

        Raises Refused where the token is not true or holds no rule, and IssuerAway where that cannot be known now.
        """
        if len(token) > MAX_TOKEN or not FORM.fullmatch(token):
            raise Refused("It is no signed JSON Web Token, or a very long one")
        digest = sha256(token.encode()).digest()
        remembered = self._remembered.get(digest)
        if remembered is not None and 0 < remembered[1] - now <= REMEMBERED_SECONDS:
            claims = remembered[0]
            return choose(_trusted(rules_of, claims["iss"]), claims)
        head, payload, _ = token.split(".")
        kid, algorithm = read_header(parse(head))
        claims = parse(payload)
        issuer = read_issuer(claims)
        rules = _trusted(rules_of, issuer)
        key = self._source(issuer).key(kid, algorithm, now)
        try:
            self._signatures.decode_complete(token, key, algorithms=[algorithm])
        except jwt.InvalidTokenError:
            raise Refused("Its signature is not by the key of its issuer") from None
        check_times(claims, now)
        check_subject(claims)
        self._remember(digest, claims, min(claims["exp"], now + REMEMBERED_SECONDS))
        return choose(rules, claims)

    def _source(self, issuer: str) -> Source:
        """Where the keys of an issuer are kept. The one that was asked for longest ago makes room for a new one."""
        with self._lock:
            source = self._sources.pop(issuer, None) or Source(issuer)
            self._sources[issuer] = source
            _shrink(self._sources, MAX_ISSUERS)
            return source

    def _remember(self, digest: bytes, claims: dict[str, Any], until: float) -> None:
        with self._lock:
            self._remembered[digest] = (claims, until)
            _shrink(self._remembered, MAX_REMEMBERED)


def _trusted(rules_of: Callable[[str], Iterable[Rule]], issuer: str) -> list[Rule]:
    rules = [*rules_of(issuer)]
    if not rules:
        raise Refused("Its issuer is not trusted")
    return rules


def _shrink(kept: dict[Any, Any], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]


# ------------------------------------------------------------------ what a token says


def parse(part: str) -> dict[str, Any]:
    """The object in a part of a token. Raises Refused where it is none."""
    try:
        # Padding that is too much is none to it.
        value = json.loads(urlsafe_b64decode(part + "=="), parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    if not _is_object(value):
        raise Refused("A part of it is no JSON object")
    return value


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_array(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _no_number(text: str) -> None:
    raise ValueError(text)


def read_header(header: Mapping[str, Any]) -> tuple[str | None, str]:
    """Which key a token asks for, and which algorithm. Raises Refused where it is none of ours."""
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if algorithm not in ALGORITHMS:
        raise Refused("Its algorithm is none of RS256, ES256 and ES384")
    if "crit" in header:
        raise Refused("Its header asks for an extension")
    if kind is not None and not (isinstance(kind, str) and kind.lower() in TYPES):
        raise Refused("It is a token of another kind")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID):
        raise Refused("Its key has no valid name")
    return kid, algorithm


def read_issuer(claims: Mapping[str, Any]) -> str:
    """The issuer that a token names. Raises Refused where it cannot be one."""
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or len(issuer) > MAX_ISSUER or urls.endpoint_fault(issuer):
        raise Refused("Its issuer is no address")
    return issuer


def check_times(claims: Mapping[str, Any], now: float) -> None:
    """Raise Refused where a token is not valid at this moment, or does not say until when it is."""
    exp, nbf, iat = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
    if exp is None:
        raise Refused("It never expires")
    if now >= exp + LEEWAY:
        raise Refused("It has expired")
    if any(moment is not None and moment > now + LEEWAY for moment in (nbf, iat)):
        raise Refused("It is not valid yet: the clock of its issuer or of the registry is wrong")


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    moment = claims.get(name)
    if moment is None:
        return None
    if type(moment) not in (int, float) or not 0 <= moment <= LAST_MOMENT:
        raise Refused(f"Its {name} is no time")
    return moment


def check_subject(claims: Mapping[str, Any]) -> None:
    """Raise Refused where a token does not say who it is about, in characters that a log may have."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or not subject.isprintable():
        raise Refused("Its subject is no text, or one with characters that nobody sees")


# ------------------------------------------------------------------ rules


def choose(rules: Iterable[Rule], claims: Mapping[str, Any]) -> Verified:
    """The rule that the claims hold: of several, the one that pins most, then by id. Raises Refused where none does."""
    audiences = {text for text in _listed(claims.get("aud")) if isinstance(text, str)}
    meant = [rule for rule in rules if rule.audience in audiences]
    if not meant:
        raise Refused("It is for another audience")
    held = [rule for rule in meant if holds(rule, claims)]
    if not held:
        raise Refused("Its claims hold no rule")
    return Verified(min(held, key=lambda rule: (-len(rule.claims), rule.id)), claims)


def holds(rule: Rule, claims: Mapping[str, Any]) -> bool:
    """Whether each claim that a rule pins is there and as it says. A rule without any would trust everybody."""
    return bool(rule.claims) and all(
        any(matches(pattern, text) for text in map(_text, _listed(claims.get(name))) if text is not None)
        for name, pattern in rule.claims.items()
    )


def _listed(value: Any) -> list[Any]:
    return value if _is_array(value) else [value]


def _text(value: Any) -> str | None:
    """A claim as pins are compared with it; None where it is an object, a list or null."""
    if isinstance(value, str):
        return value
    # As JSON writes it: true and 12, where Python would have True.
    return json.dumps(value) if isinstance(value, int | float) else None


def matches(pattern: str, text: str) -> bool:
    """Whether a text is as a pattern says, in which a star stands for any characters but a slash or a colon.

    In time that grows with the length of both: no regular expression, which could be made to try every way.
    """
    wanted, parts = SEPARATOR.split(pattern), SEPARATOR.split(text)
    return len(wanted) == len(parts) and all(map(_matches, wanted, parts))


def _matches(pattern: str, text: str) -> bool:
    first, *more = pattern.split("*")
    if not more:
        return pattern == text
    *middle, last = more
    if not text.startswith(first):
        return False
    place = len(first)
    for piece in middle:
        found = text.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return len(text) - place >= len(last) and text.endswith(last)


# ------------------------------------------------------------------ keys


class Source:
    """The keys of one issuer: fetched when they are wanted, kept for an hour, and for a day while it is away."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._lock = Lock()
        self._keys: Keys = {}
        self._fetched = self._tried = float("-inf")
        self._fault: str | None = None
        self._patience = SOON_SECONDS

    def key(self, kid: str | None, algorithm: str, now: float) -> Key:
        """The key for a token. However many ask at once, one fetches and the others wait for that.

        Raises Refused where the issuer has no such key, and IssuerAway where that cannot be known.
        """
        with self._lock:
            found = find(self._keys, kid, algorithm)
            if found is None or not _within(self._fetched, now, FRESH_SECONDS):
                self._refresh(now)
                found = find(self._keys, kid, algorithm)
            if not _within(self._fetched, now, STALE_SECONDS) or (found is None and self._fault):
                raise IssuerAway(f"The keys of {self.issuer} cannot be had: {self._fault}")
        if found is None:
            raise Refused(f"It names no key that {self.issuer} has for it")
        return found

    def _refresh(self, now: float) -> None:
        """Fetch the keys, unless that was tried just now; where it fails, those that were there stay."""
        if _within(self._tried, now, AGAIN_SECONDS if self._keys else self._patience):
            return
        if self._fault is not None:
            self._patience = min(2 * self._patience, AGAIN_SECONDS)
        self._tried = now
        try:
            self._keys = asyncio.run(fetch(self.issuer))
        except Unusable as error:
            self._fault = str(error)
        else:
            self._fetched, self._fault = now, None


def _within(moment: float, now: float, seconds: float) -> bool:
    """Whether two moments are less than that apart, in whichever order: clocks are set, and threads read them apart."""
    return abs(now - moment) < seconds


def find(keys: Keys, kid: str | None, algorithm: str) -> Key | None:
    """The key of this name and for this algorithm; the only one, where a token names none."""
    if kid is None and len(keys) == 1:
        return next((key for (_, purpose), key in keys.items() if purpose == algorithm), None)
    return None if kid is None else keys.get((kid, algorithm))


def read_keys(document: Mapping[str, Any]) -> Keys:
    """The keys of a set that can verify a token; others are left out. Raises Unusable where it is no set of keys."""
    listed = document.get("keys")
    if not _is_array(listed) or len(listed) > MAX_KEYS:
        raise Unusable("what it has for keys is no set of them, or a very large one")
    found: Keys = {}
    for each in listed:
        if not _is_object(each):
            continue
        kid, algorithm = each.get("kid"), _purpose(each)
        key = None if algorithm is None else _read_key(each)
        if algorithm is not None and key is not None and (kid is None or isinstance(kid, str)):
            name = (kid, algorithm)
            found[name] = key if found.get(name, key) == key else None
    if not any(key is not None for key in found.values()):
        raise Unusable("it has no key for RS256, ES256 or ES384")
    return found


def _purpose(member: Mapping[str, Any]) -> str | None:
    """The algorithm that a key of a set is for, by its kind; None where it is for none of ours, or for another."""
    kind = member.get("kty")
    curve = member.get("crv")
    algorithm = "RS256" if kind == "RSA" else CURVES.get(curve) if kind == "EC" and isinstance(curve, str) else None
    operations = member.get("key_ops", ["verify"])
    may_verify = member.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    return algorithm if may_verify and member.get("alg", algorithm) == algorithm else None


def _read_key(member: Mapping[str, Any]) -> Key | None:
    """A public key of a set; None where it is not valid, or weak, or no public one."""
    fields = ("kty", "n", "e") if member["kty"] == "RSA" else ("kty", "crv", "x", "y")
    # Only these: with the private part PyJWT would make a private key of it.
    public = {name: member.get(name) for name in fields}
    if "d" in member or not all(isinstance(text, str) and DIGITS.fullmatch(text) for text in public.values()):
        return None
    try:
        key: Any = RSAAlgorithm.from_jwk(public) if member["kty"] == "RSA" else ECAlgorithm.from_jwk(public)
    except (jwt.PyJWTError, ValueError):
        return None
    return key if member["kty"] == "EC" or MIN_BITS <= key.key_size <= MAX_BITS else None


# ------------------------------------------------------------------ fetching


class Unusable(Exception):
    """No keys came from an issuer: why, in a clause."""


async def fetch(issuer: str) -> Keys:
    """The keys of an issuer, by way of its discovery document. Raises Unusable where there are none to be had."""
    policy = guard.policy()
    resolver = System()
    names = Names(resolver, policy)
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            discovered = await _get(issuer.removesuffix("/") + DISCOVERY, names, policy)
            if discovered.get("issuer") != issuer:
                raise Unusable("its discovery document is of another issuer")
            return read_keys(await _get(discovered.get("jwks_uri"), names, policy))
    except TimeoutError:
        raise Unusable(f"it did not answer within {FETCH_SECONDS:g} s") from None
    finally:
        await names.close()
        await resolver.close()


async def _get(url: Any, names: Names, policy: guard.Policy) -> dict[str, Any]:
    """The JSON object at an address, to which no redirect leads. Raises Unusable where there is none."""
    if not isinstance(url, str) or len(url) > urls.MAX_LENGTH or urls.link_fault(url):
        raise Unusable("the address of its keys is none")
    site = reach.site(url, policy)
    if not site.tls and not (site.known and all(ip_address(address).is_loopback for address in site.known)):
        raise Unusable("its keys are not asked for without TLS")
    located = await reach.locate(site, names, policy)
    if isinstance(located, Finding):
        raise Unusable(_clause(located.error))
    request = f"GET {site.path} HTTP/1.1\r\nHost: {site.authority}\r\n{HEADERS}Connection: close\r\n\r\n"
    reply = Reply(None, exchange.LIMIT)
    failure, _ = await reach.dial(
        Dialler(asyncio.get_running_loop()), site, located, request.encode("ascii"), reply, reach.UNREACHABLE
    )
    if failure is not None:
        raise Unusable(_clause(failure.error))
    if reply.status is None:
        raise Unusable(_clause(reach.FAULTS.get(reply.fault, reach.CLOSED.error)))
    if reply.status != 200:
        raise Unusable(f"it answered {reply.status}")
    value = reply.parsed()
    if not _is_object(value):
        raise Unusable("its answer is no JSON object, or longer than 64 KiB")
    return value


def _clause(sentence: str | None) -> str:
    assert sentence is not None
    return sentence[0].lower() + sentence[1:]


# The one of this execution environment.
verify: Final = Verifier().verify
