"""Many at one name: 200 registrations at once end in one row, and one that races a delete ends whole or not at all."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from local.runtime import MAX_PROCESSES
from mcp_registry.aws.db import Database
from mcp_registry.catalogue import registration, servers
from mcp_registry.catalogue.registration import Registration
from mcp_registry.errors import DuplicateServer, Unavailable
from tests import issuer as played
from tests.conftest import ADMIN, PATIENCE, REGISTER, SERVERS
from tests.faults import stage
from tests.faults.ledger import STORED, Client, document, revision_of
from tests.proof import Line, interrupted, some

CROWD = 200
ROUNDS = 3  # in the bounded run
# As many execution environments as have a connection at once: the local run has four of a function, the cloud more.
SESSIONS = 150
# In the bounded run, beside which others go on: 150 take turns at one row for long there.
FEWER_SESSIONS = 60
RACERS = 10
RACES = 20  # deletes that hit, in the bounded run
PATIENCE_SECONDS = 60.0  # for each of those twenty
STARTS = 1_000  # workloads of one issuer that start at once
FEWER_STARTS = 200

ORPHANS = """
SELECT (SELECT count(*) FROM registry.tools AS t
         WHERE NOT EXISTS (SELECT FROM registry.mcp_servers AS s WHERE s.id = t.server_id))
     + (SELECT count(*) FROM registry.server_metadata AS m
         WHERE NOT EXISTS (SELECT FROM registry.mcp_servers AS s WHERE s.id = m.server_id))
     + (SELECT abs(count(*) - (SELECT sum(servers) FROM registry.server_counts)) FROM registry.mcp_servers)
"""

TRUST = """
INSERT INTO registry.issuers (id, issuer, audience, claims, team, role)
VALUES ('crowd', %s, %s, '{"sub": "workload-*"}', 'default', 'publisher')
"""
STARTED = """
SELECT (SELECT count(*) FROM registry.mcp_servers WHERE starts_with(name, 'start-')),
       (SELECT count(DISTINCT actor) FROM registry.audit WHERE starts_with(actor, 'oidc:crowd:workload-'))
"""


def prove(scale: int) -> list[Line]:
    """One crowd of each kind of sender, and a race; in longer runs twice `scale` of each."""
    # As many of each kind of sender as the goals ask for at the whole length.
    rounds = ROUNDS if scale == 1 else 2 * scale * len(KINDS)
    with stage.postgres() as server, stage.stack(server.url, **stage.QUIET) as local:
        return [
            _crowds(local.url, server.url, rounds),
            _sessions(server.url, *((FEWER_SESSIONS, ROUNDS) if scale == 1 else (SESSIONS, 2 * scale))),
            _race(local.url, server.url, RACES * scale),
            _workloads(local.url, server.url, FEWER_STARTS if scale == 1 else STARTS),
        ]


# How a crowd registers: by which method, and in which revision the nth of it does.
KINDS: tuple[tuple[str, Callable[[int], int]], ...] = (
    ("POST", lambda number: 1),
    ("PUT", lambda number: 1),
    ("PUT", lambda number: number + 1),
)


def _crowds(url: str, database_url: str, rounds: int) -> Line:
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    clients = [Client(url) for _ in range(CROWD)]
    together = threading.Barrier(CROWD)

    def ask(number: int, name: str, method: str, revision: int) -> int:
        together.wait(60)
        return clients[number].ask(method, REGISTER, document(name, revision)).status

    with ThreadPoolExecutor(CROWD) as pool:
        for round_ in range(rounds):
            method, revision = KINDS[round_ % len(KINDS)]
            name = f"crowd-{round_}"
            asked = [pool.submit(ask, number, name, method, revision(number)) for number in range(CROWD)]
            found = Counter(each.result() for each in asked)
            others = 409 if method == "POST" else 200
            if found != Counter({201: 1, others: CROWD - 1}):
                wrong.append(f"{method}: {dict(found)}")
            wrong += _not_one(database_url, name)
            statuses += found
    for client in clients:
        client.close()
    told = ", ".join(f"{n} x {status}" for status, n in sorted(statuses.items()))
    what = f"{CROWD} registrations of one name at once, {rounds} rounds"
    return Line(what, "1 x 201 and one whole row each", told + some(wrong), not wrong)


def _sessions(database_url: str, sessions: int, rounds: int) -> Line:
    """The same in the database itself, each with a connection of its own and no gateway between."""
    together = threading.Barrier(sessions)
    databases = [Database(database_url) for _ in range(sessions)]
    wrong: list[str] = []
    outcomes: Counter[str] = Counter()

    def ask(number: int, method: str, sent: Registration) -> str:
        database = databases[number].begin(PATIENCE)
        database.read("SELECT 1")
        together.wait(60)
        try:
            if method == "POST":
                servers.register(database.begin(PATIENCE), ADMIN, sent)
                return "created"
            return servers.replace(database.begin(PATIENCE), ADMIN, sent)["result"]
        except DuplicateServer:
            return "duplicate"
        except Unavailable as error:
            return f"unavailable ({error.cause})"

    with ThreadPoolExecutor(sessions) as pool:
        for round_ in range(rounds):
            method, revision = KINDS[round_ % len(KINDS)]
            name = f"session-{round_}"
            # Not in the threads, of which no function has any: msgspec may crash where two first use a type (0.22.0).
            sent = [registration.parse(document(name, revision(number))) for number in range(sessions)]
            asked = [pool.submit(ask, number, method, sent[number]) for number in range(sessions)]
            found = Counter(each.result() for each in asked)
            allowed = {"duplicate"} if method == "POST" else {"unchanged", "updated"}
            if found["created"] != 1 or not found.keys() <= allowed | {"created"}:
                wrong.append(f"{method}: {dict(found)}")
            wrong += _not_one(database_url, name)
            outcomes += found
    for database in databases:
        database.close()
    told = ", ".join(f"{n} x {outcome}" for outcome, n in sorted(outcomes.items()))
    what = f"{sessions} sessions register one name at once, {rounds} rounds"
    return Line(what, "1 created and one whole row each", told + some(wrong), not wrong)


def _race(url: str, database_url: str, deletes: int) -> Line:
    """One name is registered, replaced, taken out of service and deleted by ten clients at once."""
    known: list[int] = [1]
    statuses: Counter[str] = Counter()
    counting = threading.Lock()
    allowed = {"POST": {201, 409}, "PUT": {200, 201}, "PATCH": {200, 404}, "DELETE": {204, 404}}
    deadline = time.monotonic() + PATIENCE_SECONDS * deletes / RACES

    def going_on() -> bool:
        enough = statuses["DELETE 204"] >= deletes and statuses["POST 201"] and statuses["PUT 201"]
        return not enough and time.monotonic() < deadline and not interrupted.is_set()

    def play(number: int) -> None:
        client = Client(url)
        method = ("POST", "PUT", "DELETE", "POST", "PATCH")[number % 5]
        while going_on():
            body: dict[str, Any] | None = None
            path = f"{SERVERS}/{known[-1]}"
            if method in ("POST", "PUT"):
                path, body = REGISTER, document("race", random.randint(1, 9))
            elif method == "PATCH":
                body = {"status": random.choice(["active", "inactive"])}
            answer = client.ask(method, path, body)
            if answer.status == 201:
                known.append(answer.json()["id"])
            with counting:
                statuses[f"{method} {answer.status}"] += 1
        client.close()

    with ThreadPoolExecutor(RACERS) as pool:
        for each in [pool.submit(play, number) for number in range(RACERS)]:
            each.result()
    wrong = [kind for kind in statuses if int(kind.split()[1]) not in allowed[kind.split()[0]]]
    if statuses["DELETE 204"] < deletes:
        wrong.append(f"{statuses['DELETE 204']} of {deletes} deletes have hit")
    wrong += [f"{what} never came" for what in ("POST 201", "PUT 201", "PUT 200", "DELETE 204") if not statuses[what]]
    wrong += _not_one(database_url, "race", at_least=0)
    told = ", ".join(f"{n} x {status}" for status, n in sorted(_by_status(statuses).items()))
    what = f"register, replace, delete and patch race for one name, {deletes} deletes"
    return Line(what, "2xx, 404, 409; one row or none", told + some(wrong), not wrong)


def _workloads(url: str, database_url: str, starts: int) -> Line:
    """Workloads without a secret start at once, each with a token of its own, while their issuer takes its time."""
    audience, together, now = "https://registry.example", threading.Barrier(starts), time.time()
    clients = [Client(url) for _ in range(starts)]
    with played.Server() as server, ThreadPoolExecutor(starts) as pool:
        issuer = server.issuer("crowd", played.Key.of("ES256"))
        issuer.seconds = 0.5
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(TRUST, [issuer.url, audience])
        claims = {"aud": audience, "iat": now, "exp": now + 3_600}
        tokens = [issuer.sign({**claims, "sub": f"workload-{number}"}) for number in range(starts)]

        def start(number: int) -> int:
            together.wait(60)
            sent = document(f"start-{number}", 1)
            return clients[number].ask("PUT", REGISTER, sent, f"Bearer {tokens[number]}").status

        statuses = Counter(pool.map(start, range(starts)))
        fetched = issuer.asked.count(played.JWKS)
    for client in clients:
        client.close()
    with psycopg.connect(database_url) as connection:
        (rows, callers) = connection.execute(STARTED).fetchone() or (0, 0)
    wrong = [f"{rows} rows of {callers} callers"] if (rows, callers) != (starts, starts) else []
    told = ", ".join(f"{n} x {status}" for status, n in sorted(statuses.items()))
    met = statuses == Counter({201: starts}) and not wrong and 1 <= fetched <= MAX_PROCESSES
    what = f"{starts} workloads start at once by tokens of one issuer"
    bar = f"201 and a row each; its keys fetched {MAX_PROCESSES} times at most, once a process"
    return Line(what, bar, f"{told}; fetched {fetched} times{some(wrong)}", met)


def _by_status(statuses: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for kind, number in statuses.items():
        found[kind.split()[1]] += number
    return found


def _not_one(database_url: str, name: str, at_least: int = 1) -> list[str]:
    """What is wrong with how a name stands in the database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        rows = [row for row in connection.execute(STORED, [name]).fetchall() if row[1] == name]
        (orphans,) = connection.execute(ORPHANS).fetchone() or (None,)
    wrong = [f"{name}: half of a server" for row in rows if revision_of(row) is None]
    if not at_least <= len(rows) <= 1:
        wrong.append(f"{name}: {len(rows)} rows")
    if orphans:
        wrong.append(f"{orphans} rows belong to no server")
    return wrong
