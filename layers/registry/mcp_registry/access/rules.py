"""What may be sent about who may call: teams, tokens, trusted issuers, and the queries of their lists and of the audit.

Every limit stands here once; the tables repeat some, and a test compares them. As everywhere, null is as good as absent
and a field or parameter that does not exist is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from mcp_registry import forms
from mcp_registry.access import auth
from mcp_registry.access.audit import ACTIONS, MAX_ACTOR, MAX_SEQUENCE, MAX_TARGET
from mcp_registry.access.tokens import DIGITS, ID_LENGTH
from mcp_registry.caller import DEFAULT_TEAM
from mcp_registry.dial import guard, urls
from mcp_registry.errors import Fault, ValidationFailed

MAX_NAME = 63
MAX_PREFIXES = 100
MAX_DAYS = 366
DEFAULT_DAYS = 90
MAX_CLAIMS = 20

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000

# The name of a team, the id of a trusted issuer.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
PREFIX = re.compile(r"[a-z0-9][a-z0-9._-]*(?:[._-]|/(?:[a-z0-9][a-z0-9._-]*[._-])?)")
PREFIX_RULE = "Lower case letters, digits and . _ - and one / at most, with one of these at the end"
NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
# Controls of the terminal and of the direction of text: what shows such a text would be led by it. U+FFFD is what a
# gateway makes of broken UTF-8.
UNREADABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffd]")

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Role = Literal["reader", "publisher", "curator", "admin"]


class Team(Struct, forbid_unknown_fields=True, kw_only=True):
    """What a team is set to, as a whole."""

    contact: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    prefixes: Annotated[list[Annotated[str, Meta(min_length=2, max_length=100)]], Meta(max_length=MAX_PREFIXES)] = []


class Grant(Struct, forbid_unknown_fields=True, kw_only=True):
    """What a token is to be: for whom, and for how long."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    team: Name = DEFAULT_TEAM
    role: Role
    expires_in_days: Annotated[int, Meta(ge=1, le=MAX_DAYS)] = DEFAULT_DAYS


class Trust(Struct, forbid_unknown_fields=True, kw_only=True):
    """Who is let in by a token that an issuer has signed: what it has to say, and who that is."""

    issuer: Annotated[str, Meta(max_length=500)]
    audience: Annotated[str, Meta(min_length=1, max_length=500)]
    claims: Annotated[
        dict[
            Annotated[str, Meta(min_length=1, max_length=100)],
            Annotated[str, Meta(min_length=1, max_length=500)],
        ],
        Meta(min_length=1, max_length=MAX_CLAIMS),
    ]
    team: Name
    role: Role


Sent = TypeVar("Sent", bound=Struct)


def parse_team(value: Any) -> Team:
    """Check a JSON value and return it as a team. Raises ValidationFailed with every fault that was found."""
    team = _converted(value, Team, "A team")
    _refuse(
        [
            *_text_faults({"contact": team.contact}),
            *(
                Fault(f"prefixes.{place}", PREFIX_RULE, "value")
                for place, prefix in enumerate(team.prefixes)
                if not PREFIX.fullmatch(prefix)
            ),
            *_repeated(team.prefixes),
        ]
    )
    return team


def parse_grant(value: Any) -> Grant:
    """Check a JSON value and return it as the wish for a token. Raises ValidationFailed likewise."""
    if isinstance(value, dict) and isinstance(days := value.get("expires_in_days"), float) and days.is_integer():
        value = {**value, "expires_in_days": int(days)}  # 90.0 is the same JSON number as 90
    grant = _converted(value, Grant, "The wish for a token")
    _refuse([*_text_faults({"name": grant.name}), *_name_faults("team", grant.team)])
    return grant


def parse_trust(value: Any) -> Trust:
    """Check a JSON value and return it as a trusted issuer, whose address may be dialled.

    Raises ValidationFailed likewise. Asks a resolver, once all else is right, and may take its second.
    """
    trust = _converted(value, Trust, "A trusted issuer")
    texts = {"audience": trust.audience, **{f"claims.{name}": text for name, text in trust.claims.items()}}
    faults = [*_issuer_faults(trust.issuer), *_text_faults(texts), *_name_faults("team", trust.team)]
    if not auth.trusts(trust.issuer):
        faults.append(Fault("issuer", "Not among those that this deployment may trust (TrustedIssuers)", "blocked"))
    for claim, text in trust.claims.items():
        if claim in ("iss", "aud"):
            faults.append(Fault(f"claims.{claim}", "Stands in a field of its own: issuer, audience", "value"))
        elif claim in ("exp", "iat", "nbf", "jti"):
            faults.append(Fault(f"claims.{claim}", "Is another one in each token, and pins nobody", "value"))
        elif not any(character.isalnum() for character in text):
            faults.append(Fault(f"claims.{claim}", "Stars and separators alone pin nothing", "value"))
        if UNREADABLE.search(claim):
            faults.append(Fault(f"claims.{claim}", "The claim's name holds control characters", "value"))
    _refuse(faults)
    if fault := guard.look_up_fault(trust.issuer, guard.policy()):
        raise ValidationFailed(faults=[Fault("issuer", fault, "blocked")])
    return trust


def parse_name(path: Mapping[str, str], parameter: str) -> str:
    """The name of a team or the id of a trusted issuer, of a path. Raises ValidationFailed where it can be none."""
    name = path.get(parameter, "")
    _refuse([*_name_faults(parameter, name)])
    return name


def parse_token_id(path: Mapping[str, str]) -> str:
    """The id of a token, of a path. Raises ValidationFailed where it can be none."""
    id_ = path.get("id", "")
    _refuse([*_token_id_faults("id", id_)])
    return id_


class TokenPage(NamedTuple):
    """A checked request for one page of tokens: those of a team, or all, whose ids follow `after`."""

    team: str | None
    after: str
    limit: int


def parse_token_page(query: Mapping[str, str]) -> TokenPage:
    """Check the query parameters of the list of tokens. Raises ValidationFailed with every fault."""
    faults = _unknown(query, ("team", "after", "limit"))
    team, after = query.get("team") or None, query.get("after", "")
    if team is not None:
        faults += _name_faults("team", team)
    if after:
        faults += _token_id_faults("after", after)
    limit = _limit(query, faults)
    _refuse(faults)
    return TokenPage(team, after, limit)


class AuditPage(NamedTuple):
    """A checked request for one page of the audit: the entries that follow `after` and are of all that is named."""

    after: int
    limit: int
    actor: str | None
    target: str | None
    action: str | None


def parse_audit_page(query: Mapping[str, str]) -> AuditPage:
    """Check the query parameters of the audit. An empty filter is none. Raises ValidationFailed with every fault."""
    faults = _unknown(query, ("after", "limit", "actor", "target", "action"))
    after = query.get("after", "0")
    if not NUMBER.fullmatch(after) or int(after) > MAX_SEQUENCE:
        faults.append(Fault("after", f"Must be a number from 0 to {MAX_SEQUENCE}", "value"))
    limit = _limit(query, faults)
    actor, target, action = (query.get(name) or None for name in ("actor", "target", "action"))
    faults += _text_faults({"actor": actor, "target": target})
    for name, text, longest in (("actor", actor, MAX_ACTOR), ("target", target, MAX_TARGET)):
        if text is not None and len(text) > longest:
            faults.append(Fault(name, f"Must have at most {longest} characters", "length"))
    if action is not None and action not in ACTIONS:
        faults.append(Fault("action", f"Must be one of {', '.join(ACTIONS)}", "enum"))
    _refuse(faults)
    return AuditPage(int(after), limit, actor, target, action)


def refuse_parameters(query: Mapping[str, str]) -> None:
    """Raise ValidationFailed where a route that has no parameters is given some."""
    _refuse(_unknown(query, ()))


def _converted(value: Any, struct: type[Sent], subject: str) -> Sent:
    if not isinstance(value, dict):
        raise ValidationFailed(f"{subject} is a JSON object")
    normal = forms.present(value)
    try:
        return msgspec.convert(normal, struct)
    except msgspec.ValidationError:
        faults = [_of_members(fault) if struct is Team else fault for fault in forms.faults(normal, struct)]
        raise ValidationFailed(faults=faults) from None


def _of_members(fault: Fault) -> Fault:
    """The fault of a team, with a better word for who wants to set its members."""
    if fault.path != "members":
        return fault
    return fault._replace(message="Members follow from tokens and issuers: make one for this team")


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise ValidationFailed(faults=faults)


def _unknown(query: Mapping[str, str], known: tuple[str, ...]) -> list[Fault]:
    return [Fault(name, "There is no such parameter", "unknown") for name in query if name not in known]


def _limit(query: Mapping[str, str], faults: list[Fault]) -> int:
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if NUMBER.fullmatch(limit) and 1 <= int(limit) <= MAX_LIMIT:
        return int(limit)
    faults.append(Fault("limit", f"Must be a number from 1 to {MAX_LIMIT}", "value"))
    return DEFAULT_LIMIT


def _name_faults(path: str, name: str) -> Iterator[Fault]:
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        told = f"1 to {MAX_NAME} lower case letters, digits and -, which is neither the first nor the last"
        yield Fault(path, told, "value")


def _token_id_faults(path: str, id_: str) -> Iterator[Fault]:
    if len(id_) != ID_LENGTH or not set(id_) <= set(DIGITS):
        yield Fault(path, f"The id of a token is {ID_LENGTH} letters and digits", "value")


def _text_faults(texts: Mapping[str, str | None]) -> Iterator[Fault]:
    """Texts that people read and that cannot be read."""
    for path, text in texts.items():
        if text is not None and UNREADABLE.search(text):
            yield Fault(path, "Holds control characters", "value")
        elif text is not None and not text.strip():
            yield Fault(path, "Holds nothing but blanks", "value")


def _repeated(prefixes: list[str]) -> Iterator[Fault]:
    """Prefixes of one list that read alike, as the key in registry.team_prefixes has it."""
    first: dict[str, int] = {}
    for place, prefix in enumerate(prefixes):
        namespace, slash, rest = re.sub("[._-]+", "-", prefix).rpartition("/")
        rest = re.sub("(?<![0-9])-|-(?![0-9])", "", rest)
        key = f"{namespace.strip('-')}{slash}{rest}".translate(str.maketrans("01", "ol"))
        if first.setdefault(key, place) != place:
            yield Fault(f"prefixes.{place}", f"Reads like prefixes.{first[key]}", "repeated")


def _issuer_faults(url: str) -> Iterator[Fault]:
    """Why this cannot be an issuer (OpenID Connect Core 1.0, section 2, `iss`), or may not be dialled."""
    if fault := urls.link_fault(url):
        yield Fault("issuer", fault, "value")
    elif "?" in url or "#" in url:
        yield Fault("issuer", "An issuer has no query and no fragment", "value")
    elif fault := guard.policy().url_fault(url):
        yield Fault("issuer", fault, "blocked")
    elif not url.lower().startswith("https:") and not _is_loopback(url):
        yield Fault("issuer", "An issuer has https: who could change its keys on the way would be anybody", "value")


def _is_loopback(url: str) -> bool:
    """Whether a valid URL leads to this machine, which the guard lets nobody name but in a local run."""
    addresses = guard.known(url)
    return bool(addresses) and all(address == "::1" or address.startswith("127.") for address in addresses)
