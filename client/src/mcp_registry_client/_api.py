"""The registry's API: what is asked of it, and what its refusals mean for whoever gave the command."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from operator import eq
from typing import Any, Final, Literal, NamedTuple, cast
from urllib.parse import quote, urlencode

from mcp_registry_client import _transport
from mcp_registry_client._answer import Room
from mcp_registry_client._ending import Exit, Stopped, misused
from mcp_registry_client._identity import Identities, Identity, NoIdentity
from mcp_registry_client._json import depth, faults, mappings, parsed
from mcp_registry_client._trimming import Trimming

MAX_PAGE: Final = 1000
# How many names are looked through for one that is spelled another way, or nearly so.
MAX_SEARCHED: Final = 20_000
MAX_SEARCH: Final = 200
SUGGESTIONS: Final = 5
# The registry's own rule of which names are one (see `_keys`). A separator that counts stands between two digits; to
# the eye, l and o may be digits.
SEPARATORS: Final = re.compile(r"[._-]+")
UNCOUNTED: Final = re.compile(r"(?<![0-9])-|-(?![0-9])")
UNCOUNTED_IN_FIGURES: Final = re.compile(r"(?<![0-9lo])-|-(?![0-9lo])")
LOOK_ALIKE: Final = str.maketrans("01", "ol")
# An id, as the registry writes one. The greatest is that of a bigint.
ID: Final = re.compile(r"[1-9][0-9]{0,18}")
MAX_ID: Final = 2**63 - 1
# What is read of one answer, and of all answers to one command. The largest page has 2.1 MB: a thousand servers with
# the longest names. A usual one has 0.5 MB. As values, JSON needs up to 28 times its bytes (2026-11-30).
MAX_ANSWER: Final = 4 << 20
MAX_ANSWERS: Final = 32 << 20
# A list of a million servers, where its pages are full. Others lead on and on.
MAX_PAGES: Final = 1_000
# What is not there, and what shows what is.
UNKNOWN: Final = {
    "SERVER_NOT_FOUND": "mcp-registry list shows the ids of all",
    "TEAM_NOT_FOUND": "mcp-registry teams list shows all",
    "TOKEN_NOT_FOUND": "mcp-registry tokens list shows all",
    "ISSUER_NOT_FOUND": "mcp-registry issuers list shows all",
    "SNAPSHOT_NOT_FOUND": "mcp-registry approvals NAME shows what there is",
}
# What to do about the refusals by 409.
CONFLICTS: Final = {
    "DUPLICATE_SERVER": "choose another name by --name, or that spelling",
    "CONFLICTING_SERVER": "choose another name by --name",
    "HELD_NAME": "choose another name by --name, or wait until then",
    "DUPLICATE_PREFIX": "choose another prefix, or take it from that team first",
    "INACTIVE_SERVER": "mcp-registry enable NAME puts it back",
    "NOT_UNDER_REVIEW": "mcp-registry policy NAME manual does",
}
# No answer of the registry is half as deep: a schema has 64 levels. What is deeper cannot be written as JSON again.
MAX_DEPTH: Final = 200


class Listing(NamedTuple):
    """Servers of the list: how many there are in all, at least or exactly so many, and where the next page begins."""

    servers: list[dict[str, Any]]
    total: int
    total_is: Literal["exact", "at_least"]
    next_cursor: str | None


class Registry:
    """A registry: where it is, who asks it, how many seconds each of its answers may take, and all of them bytes."""

    def __init__(self, url: str, identities: Identities, seconds: float, most: int = MAX_ANSWERS) -> None:
        self._url = url.rstrip("/")
        self._identities = identities
        self._seconds = seconds
        self._most = self._left = most

    def ask(self, method: str, path: str, document: object = None) -> dict[str, Any]:
        """Ask a route, with a document where there is one; the object that is answered, empty where there is none."""
        return self._ask(method, path, b"" if document is None else json.dumps(document).encode())[1]

    def renew(self) -> None:
        """Begin to count anew what is read: a command that goes on and on may read as much each time."""
        self._left = self._most

    def put(self, trimming: Trimming) -> dict[str, Any]:
        """Register a server or bring it up to date; the answer, which has `id`, `name` and `result`.

        What the registry does not take of its tools is left out: `trimming` then says what that is.
        """
        while True:
            try:
                status, answer = self._ask("PUT", "/api/registry/register", trimming.body)
            except Stopped as stopped:
                if stopped.code == "VALIDATION_ERROR" and trimming.learn(stopped.details):
                    continue
                if stopped.code == "PAYLOAD_TOO_LARGE" and trimming.shorten():
                    continue
                raise
            if not _is_server(answer) or not isinstance(answer.get("result"), str):
                raise self.strange(status)
            return answer

    def set_status(self, number: int, status: str) -> dict[str, Any]:
        """Take a server out of service (`inactive`) or put it back (`active`); the answer, with its `status` now."""
        body = json.dumps({"status": status}).encode()
        code, answer = self._ask("PATCH", f"/api/registry/servers/{number}", body)
        if not _is_server(answer) or not isinstance(answer.get("status"), str):
            raise self.strange(code)
        return answer

    def detail(self, id_or_name: int | str) -> dict[str, Any]:
        """Everything that is stored of one server; at least `id` and `name`. By its name, registries do not always."""
        reference = quote(str(id_or_name), safe="", errors="replace")
        status, answer = self._ask("GET", f"/api/registry/servers/{reference}")
        if not _is_server(answer):
            raise self.strange(status)
        return answer

    def health(self, number: int) -> dict[str, Any]:
        """What the checks of one server found within 24 hours."""
        return self._ask("GET", f"/api/registry/servers/{number}/health?period=24h")[1]

    def remove(self, number: int, hold_seconds: int | None = None) -> None:
        """Remove a server, and let nobody register its name for so many seconds."""
        query = "" if hold_seconds is None else f"?hold={hold_seconds}"
        status, _ = self._ask("DELETE", f"/api/registry/servers/{number}{query}")
        if status != 204:
            raise self.strange(status)

    def servers(self, filters: Mapping[str, str], wanted: int | None) -> Listing:
        """Servers that pass the filters; all where none is `wanted`."""
        servers: list[dict[str, Any]] = []
        cursor: str | None = None
        status = most = 0
        for _ in range(MAX_PAGES):
            limit = MAX_PAGE if wanted is None else min(wanted - len(servers), MAX_PAGE)
            # The cursor brings its filters along.
            query = {"limit": str(limit), **({"cursor": cursor} if cursor else filters)}
            path = f"/api/registry/servers?{urlencode(query, quote_via=quote, errors='replace')}"
            status, page = self._ask("GET", path)
            total, following = page.get("total"), page.get("next_cursor")
            found = mappings(page.get("servers"))
            if not isinstance(page.get("servers"), list) or not isinstance(total, int) or len(found) > limit:
                raise self.strange(status)
            servers += found
            # The total may be a count so far, or change while the pages are read; but no page begins far behind it.
            most = max(most, total)
            at_least = page.get("total_is") == "at_least"  # an older registry counts all, and does not say so
            following = following if isinstance(following, str) else None
            if following is None or (wanted is not None and len(servers) >= wanted):
                return Listing(servers, total, "at_least" if at_least else "exact", following)
            # Else pages that lead back to themselves, or on to others like them, would be read for ever.
            is_beyond = len(servers) > most + MAX_PAGE and not at_least
            if not found or following == cursor or is_beyond:
                break
            cursor = following
        raise self.strange(status)

    def registered(self, name: str) -> dict[str, Any] | None:
        """Everything that is stored of the server of exactly this name; None where there is none."""
        if not name.isdigit():  # which would be an id
            try:
                found = self.detail(name)
            except Stopped as stopped:
                if stopped.ending == Exit.NOT_FOUND:
                    return None
                if stopped.ending != Exit.FAILED:
                    raise
            else:
                if found["name"] == name:
                    return found
        # A name from before digits were an id; or a registry of before 1 December 2026, which knows ids only.
        for server in self._search(name):
            if server.get("name") == name:
                return self.detail(self._id(server))
        return None

    def find(self, given: str) -> dict[str, Any]:
        """Everything that is stored of the server that is meant.

        By its id, or by its name in any spelling that the registry calls equal. Digits alone may be either: where they
        are the id of one server and the name of another, nobody guesses which.
        """
        numbered = self._numbered(given)
        if numbered is not None:
            named = self.registered(given)
            if named is None or named["id"] == numbered["id"]:
                return numbered
            sentence = f"{given} is the id of {numbered['name']}, and the name of the server with the id {named['id']}"
            raise misused(f"{sentence}: give {numbered['name']} or {named['id']}")
        if (exact := self.registered(given)) is not None:
            return exact
        # A search finds parts of names as they are spelled. Another spelling is found by looking at all.
        servers = self.servers({}, MAX_SEARCHED).servers
        same = _same(servers, given)
        if not same:
            raise _unknown(given, self._search(given), servers)
        if len(same) > 1:
            names = " or ".join(str(server["name"]) for server in same)
            raise misused(f"{given} may be read as the name of more than one server: give {names}")
        return self.detail(self._id(same[0]))

    def _numbered(self, given: str) -> dict[str, Any] | None:
        """The server of this id; None where there is none, or this is no id."""
        if not ID.fullmatch(given) or int(given) > MAX_ID:
            return None
        try:
            return self.detail(int(given))
        except Stopped as stopped:
            if stopped.ending == Exit.NOT_FOUND:
                return None
            raise

    def _search(self, name: str) -> list[dict[str, Any]]:
        return self.servers({"search": name[:MAX_SEARCH]}, MAX_SEARCHED).servers if name.isprintable() else []

    def _id(self, server: Mapping[str, Any]) -> int:
        number = server.get("id")
        if not isinstance(number, int):
            raise self.strange(200)
        return number

    # ------------------------------------------------------------------ one request

    def _ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Send a request; its status, and the object that is answered, which is empty where there is nothing to say.

        Raises Stopped where it is refused, or nothing comes that a registry would say.
        """
        response = self._answered(method, path, body)
        status = response.status
        if 300 <= status < 400 and (location := response.headers.get("location")):
            base = location.removesuffix(path)
            sentence = f"The registry's URL {self._url} leads on to {base} ({status})"
            advice = "give that address by MCP_REGISTRY_URL or --registry"
            raise Stopped(Exit.FAILED, "MOVED", f"{sentence}: {advice}")
        # What Python takes for JSON beyond JSON (NaN) would stand in --json as it came.
        value = parsed(response.body) if response.body else {}
        if not isinstance(value, dict) or depth(value) > MAX_DEPTH:
            raise self.strange(status)
        answer = cast("dict[str, Any]", value)
        if 200 <= status < 300:
            return status, answer
        raise self._refusal(response, answer)

    def _answered(self, method: str, path: str, body: bytes) -> _transport.Response:
        """What is answered to the first identity that the registry takes. Raises Stopped where nothing is."""
        while True:
            try:
                identity = self._identities.now(self._seconds)
            except NoIdentity as reason:
                raise Stopped(Exit.UNAUTHORISED, "NO_IDENTITY", f"AWS signs no token for this role: {reason}") from None
            response = self._sent(method, path, body, identity)
            if response.status != 401 or identity is None or not self._identities.refuse(identity):
                return response

    def _sent(self, method: str, path: str, body: bytes, identity: Identity | None) -> _transport.Response:
        given = min(MAX_ANSWER, self._left)
        room = Room(given)
        try:
            response = _transport.request(
                method,
                self._url + path,
                headers={"Content-Type": "application/json"} if body else {},
                body=body,
                deadline_seconds=self._seconds,
                authorization=None if identity is None else identity.authorization,
                room=room,
            )
        except _transport.Failed as failed:
            if failed.kind == "too_large" and given < MAX_ANSWER:
                sentence = f"The registry's answers are longer than {self._most >> 20} MiB in all"
                raise Stopped(Exit.FAILED, "TOO_LARGE", f"{sentence}: narrow the list by a filter or --limit") from None
            raise self._unreached(failed) from None
        self._left -= given - room.left
        return response

    def _unreached(self, failed: _transport.Failed) -> Stopped:
        kind, why = failed.kind, str(failed).rstrip(".")
        if kind == "url":
            return misused(f"{why}: look at MCP_REGISTRY_URL or --registry")
        if kind in ("garbage", "too_large"):
            return self.strange(None)
        advice = {
            "lookup": "check its host name",
            "refused": "start it, or check its port",
            "tls": "mend its certificate, or name the file of a private CA in SSL_CERT_FILE",
            "timeout": "try again, or give it longer by --timeout",
        }.get(kind, "check its address")
        sentence = f"The registry at {self._url} cannot be reached ({why}): {advice}"
        return Stopped(Exit.UNREACHABLE, "CANNOT_REACH", sentence)

    def strange(self, status: int | None = None) -> Stopped:
        """The end of a command to which something answered that no registry would say."""
        answered = "" if status is None else f" (HTTP {status})"
        if status in (502, 504):
            return Stopped(Exit.UNREACHABLE, "UNAVAILABLE", f"The registry is not available{answered}: try again later")
        sentence = f"What answers at {self._url} is not an MCP registry{answered}: check MCP_REGISTRY_URL or --registry"
        return Stopped(Exit.FAILED, "NOT_A_REGISTRY", sentence)

    def _refusal(self, response: _transport.Response, answer: Mapping[str, Any]) -> Stopped:
        """What the registry says no by, and what to do about it."""
        status, code, sentence = response.status, answer.get("code"), answer.get("error")
        if not isinstance(code, str) or not isinstance(sentence, str):
            return self.strange(status)
        sentence = sentence.rstrip(".")
        details = faults(answer)
        if status == 401:
            given = "The registry refuses the credentials" if self._identities else "The registry wants credentials"
            advice = "set MCP_REGISTRY_TOKEN, or MCP_REGISTRY_USERNAME and MCP_REGISTRY_PASSWORD"
            return Stopped(Exit.UNAUTHORISED, code, f"{given}: {advice}")
        if status == 403:
            # The registry says itself whom to ask, where a server is another team's.
            advice = "" if ": ask " in sentence else ": ask whoever runs the registry"
            return Stopped(Exit.UNAUTHORISED, code, f"{sentence}{advice}")
        if code in UNKNOWN:
            return Stopped(Exit.NOT_FOUND, code, f"{sentence}: {UNKNOWN[code]}")
        if status in (429, 503):
            wait = response.headers.get("retry-after", "")
            seconds = int(wait) if re.fullmatch(r"[0-9]{1,6}", wait) else None
            moment = "in a moment" if seconds is None else f"in {seconds} second{'' if seconds == 1 else 's'}"
            sentence = sentence.partition(": try again")[0]
            return Stopped(Exit.UNREACHABLE, code, f"{sentence}: try again {moment}", wait_seconds=seconds)
        mend = "mend what is named below" if details else ""
        if any(fault.path == "name" for fault in details):
            mend += ", the name by --name"
        advice = {
            404: "is the registry's URL complete?",
            409: CONFLICTS.get(code, ""),
            413: "the registry takes 1 MiB",
            500: "look into the registry's log",
        }.get(status, mend)
        return Stopped(Exit.FAILED, code, f"{sentence}: {advice}" if advice else sentence, details)


def _keys(name: str) -> tuple[str, str, str]:
    """What a reader takes a name for, by the registry's rule: two names are one where any of the three is equal.

    By the first, case does not count; by the second, a capital I is the l that it looks like; by the third, l and o are
    the digits that they look like too. 0 is o and 1 is l. Separators count between two digits and before the slash; of
    which kind they are never does.
    """
    look = name.replace("I", "l").lower()
    return _spelling(name.lower(), UNCOUNTED), _spelling(look, UNCOUNTED), _spelling(look, UNCOUNTED_IN_FIGURES)


def _spelling(name: str, uncounted: re.Pattern[str]) -> str:
    namespace, slash, rest = name.rpartition("/")
    read = uncounted.sub("", SEPARATORS.sub("-", rest))
    if slash:
        read = f"{SEPARATORS.sub('-', namespace).strip('-')}/{read}"
    return read.translate(LOOK_ALIKE)


def _same(servers: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The servers whose name the registry calls equal to this one: three at most, one for each key."""
    wanted = _keys(name)
    return [server for server in servers if any(map(eq, _keys(str(server.get("name"))), wanted))]


def _is_server(answer: Mapping[str, Any]) -> bool:
    return isinstance(answer.get("id"), int) and isinstance(answer.get("name"), str)


def _unknown(given: str, similar: list[dict[str, Any]], servers: list[dict[str, Any]]) -> Stopped:
    """The end of a command whose server is not there, with the names that are like it."""
    import difflib

    names = [str(server.get("name")) for server in servers]
    near = [str(server.get("name")) for server in similar] + difflib.get_close_matches(given, names, SUGGESTIONS)
    suggestions = list(dict.fromkeys(near))[:SUGGESTIONS]
    otherwise = "mcp-registry list shows the names of all"
    advice = f"is it {' or '.join(suggestions)}?" if suggestions else otherwise
    return Stopped(Exit.NOT_FOUND, "SERVER_NOT_FOUND", f"No server has the name {given}: {advice}")
