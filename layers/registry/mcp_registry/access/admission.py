"""Who sent a request, by its Authorization header: the administrator, the holder of a token, or a workload.

    Basic <user name and password>   the bootstrap administrator, by `auth`
    Bearer <token>                   a token of the registry's own (`tokens`), or one of a trusted issuer (`issuers`)
    Basic <any name and a token>     the same, for what can send nothing else

Which tokens there are, and what is asked of an issuer's, only the database knows, and the authorizer has none: it asks
another function (IDENTIFY_URL) and goes on with an answer for some seconds.

For the administrator's credentials built-in modules are enough (`auth`): the others are imported where such a token
comes.
"""

from __future__ import annotations

import os
import time

from mcp_registry.access import auth, limits, tokens

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to import
if TYPE_CHECKING:
    from typing import Any

# With API Gateway's 30 s (ReauthorizeEvery), a token that was revoked ends within a minute.
FRESH_SECONDS = 25.0
MAX_ANSWERS = 1_000

# As `caller` has them, which imports typing and more: a cold start of the authorizer would take milliseconds longer.
ADMINISTRATOR_ROLE, ADMINISTRATOR_TEAM = "admin", "default"

# A caller as the gateway's context tells of it: name, role, team.
Caller = dict[str, str]

# What the other function answered, by its question, and when.
_answers: dict[str, tuple[float, Any]] = {}


class Unauthorized(Exception):
    """Unauthorized

    This word alone makes API Gateway answer 401 and remember nothing.
    """

    def __init__(self) -> None:
        super().__init__("Unauthorized")


def caller_of(header: str, address: str) -> Caller | None:
    """The caller with this Authorization header from this address; None where nobody has such a credential.

    Raises Unauthorized where so many wrong ones came from there that it was not looked at; auth.NotConfigured,
    invoke.Unanswered and issuers.IssuerAway where it cannot be known now.
    """
    # Of the wall: the other clocks may stand still while an execution environment is frozen.
    now = time.time()
    # Without the scheme, which may be written in any case.
    credential = tokens.digest(header.partition(" ")[2])
    # Of an input without an address nobody is counted.
    closed = bool(address) and limits.is_closed(address, credential, now)
    caller = _caller(header, now, closed=closed)
    if caller is None:
        limits.note_wrong(address, now)
    else:
        limits.note_right(credential, now)
    return caller


def forget() -> None:
    """Begin anew, as an execution environment that has seen nothing yet."""
    _answers.clear()
    limits.forget()


def _caller(header: str, now: float, *, closed: bool) -> Caller | None:
    """The same; where the address is `closed` nobody may guess a password. A token can be guessed by nobody."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() == "bearer":
        return _bearer(text, now)
    given = auth.parse(header)
    if given is None:
        return None
    name, password = given[0].decode(), given[1].decode()
    token = tokens.parse(password)
    if token is None:
        # Also of what looks like an issuer's: a password may be any text.
        if closed and password.count(".") != 2:
            raise Unauthorized
        if not closed and auth.permits(header):
            return {"name": name, "role": ADMINISTRATOR_ROLE, "team": ADMINISTRATOR_TEAM}
        return _of_workload(password, now) if password.count(".") == 2 else None
    return _of_token(token, now)


def _bearer(text: str, now: float) -> Caller | None:
    token = tokens.parse(text)
    if token is not None:
        return _of_token(token, now)
    return _of_workload(text, now) if text.count(".") == 2 else None


def _of_token(token: tokens.Token, now: float) -> Caller | None:
    digest = tokens.digest(token.text).hex()
    return _asked(digest, {"token": {"id": token.id, "digest": digest}}, now)["caller"]


def _of_workload(text: str, now: float) -> Caller | None:
    import logging  # which the verifier loads as well

    from mcp_registry.access import issuers

    def rules_of(issuer: str) -> list[Any]:
        if not auth.trusts(issuer):
            return []
        return [issuers.Rule(**rule) for rule in _asked(f"issuer {issuer}", {"issuer": issuer}, now)["rules"]]

    try:
        verified = issuers.verify(text, rules_of, now)
    except issuers.Refused as refused:
        # Whoever set up the issuer learns nowhere else why; who sent it learns nothing.
        logging.getLogger(__name__).warning("A token of an issuer is refused: %s", refused)
        return None
    # It stands between the quotation marks of a log in JSON.
    if '"' in verified.name or "\\" in verified.name:
        return None
    return {"name": verified.name, "role": verified.rule.role, "team": verified.rule.team}


def _asked(key: str, question: dict[str, Any], now: float) -> Any:
    """What the database knows, at most FRESH_SECONDS old. Raises invoke.Unanswered where it cannot be asked."""
    asked, answer = _answers.get(key, (0.0, None))
    if 0 <= now - asked < FRESH_SECONDS:
        return answer
    from mcp_registry.aws import invoke

    answer = invoke.ask(os.environ["IDENTIFY_URL"], question)
    _answers.pop(key, None)
    _answers[key] = (now, answer)
    if len(_answers) > MAX_ANSWERS:
        del _answers[next(iter(_answers))]
    return answer
