"""Catalogues to measure with: servers and tools like real ones, any number of them, always the same.

The shapes follow the 272 tools of 15 real MCP servers (2026-11-22): a description has 80 characters in the middle
and 400 in the last tenth, an input schema 420 bytes and 2,500.
"""

from __future__ import annotations

import json
import random
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.sql import SQL, Identifier

from local.postgres import Postgres
from sql.migrate import migrate

TOOLS = 5  # of each server

# What servers are about, most frequent first, and who makes them. Frequencies fall as they do in real names.
THINGS_TEXT = """
database github postgres search files browser weather calendar docs slack email memory time notion jira sheets
sqlite mysql redis kafka docker kubernetes terraform cloudwatch lambda storage bucket queue secrets metrics logs
traces alerts incidents tickets billing invoices payments orders catalog inventory shipping maps routes flights
hotels recipes nutrition fitness music video images fonts colors icons charts reports dashboards forms surveys
contacts leads campaigns newsletters translations dictionary wikipedia arxiv papers patents news rss podcasts stocks
crypto currency taxes payroll hiring reviews compliance audit scanner sandbox compiler linter formatter
"""
VENDORS_TEXT = """
acme globex initech umbrella hooli stark wayne wonka tyrell cyberdyne soylent vandelay dunder sterling pied massive
virtucon oceanic gringotts duff monarch aperture weyland oscorp lexcorp nakatomi rekall zorin blue-sun moby octan
roxxon veridian yoyodyne zenith northwind contoso fabrikam tailspin adventure litware proseware lucerne margie trey
fourth-coffee wide-world woodgrove relecloud bellows alpine consolidated humongous graphic school-fine southridge
wingtip cohovine munson parnell lakeshore
"""
THINGS, VENDORS = THINGS_TEXT.split(), VENDORS_TEXT.split()

# One statement for any number of servers. hashint4 scatters the words; the powers make some of them frequent.
# `quetzal` is the rare word: one server of each catalogue has it.
FILL = """
WITH drawn AS (
    SELECT i,
           (hashint4(i) & 1048575) / 1048576.0 AS a,
           (hashint4(i + 10000019) & 1048575) / 1048576.0 AS b,
           (hashint4(i + 20000003) & 1048575) / 1048576.0 AS c
      FROM generate_series(1, %(servers)s) AS i
), worded AS (
    SELECT i, a, b, c,
           CASE WHEN i = 500 THEN 'quetzal'
                ELSE (%(things)s::text[])[1 + floor(power(a, 2.0) * %(n_things)s)::integer] END AS thing,
           (%(vendors)s::text[])[1 + floor(power(b, 1.5) * %(n_vendors)s)::integer] AS vendor
      FROM drawn
), named AS (
    SELECT i, a, b, c, thing, vendor,
           CASE WHEN c < 0.45 THEN vendor || '/' || thing || '-mcp-' || to_hex(i)
                WHEN c < 0.80 THEN 'mcp-server-' || thing || '-' || vendor || '-' || to_hex(i)
                ELSE vendor || '-' || thing || '-' || to_hex(i) END AS name
      FROM worded
)
INSERT INTO registry.mcp_servers
       (name, display_name, description, server_type, endpoint_url, endpoint_id, status, version, tools_count,
        body_digest, content_digest)
SELECT name, initcap(vendor) || ' ' || initcap(thing) ||
       CASE WHEN c < 0.6 THEN ' MCP Server' ELSE ' tools' END,
       'Gives agents access to ' || thing || ' of ' || vendor || ': read, search, create and update.',
       (CASE WHEN b < 0.05 THEN 'official' WHEN b < 0.9 THEN 'community' ELSE 'mock' END)::registry.server_type,
       'https://' || vendor || '.example.com/' || thing || '/' || i || '/mcp', i,
       (CASE WHEN a + b < 0.2 THEN 'inactive' WHEN c > 0.92 THEN 'error' ELSE 'active' END)::registry.server_status,
       '1.' || i %% 20 || '.' || i %% 7, %(tools)s,
       sha256(convert_to(name, 'UTF8')), sha256(convert_to(name, 'UTF8'))
  FROM named
 ORDER BY i
"""
FILL_TOOLS = """
INSERT INTO registry.tools (server_id, position, name, title, description, input_schema, annotations)
SELECT id, position, 'tool_' || position, NULL, (%(descriptions)s::text[])[position],
       (%(schemas)s::text[])[position]::json, '{"readOnlyHint":true}'::json
  FROM registry.mcp_servers
 CROSS JOIN generate_series(1, %(tools)s) AS position
 ORDER BY id, position
"""
FILL_ENDPOINTS = """
WITH made AS (
    INSERT INTO registry.endpoints (id, server_id, url)
    SELECT endpoint_id, id, endpoint_url
      FROM registry.mcp_servers
    RETURNING id
)
SELECT setval('registry.endpoints_id_seq', max(id))
  FROM made
"""
# What a registry knows of servers that it has checked for a while: of those that are up what they said of themselves,
# of the others what they answered. One in a hundred has not been checked.
INTRODUCE = """
UPDATE registry.endpoints
   SET pulse = '["no JSON",[400,"application/json","{\\"error\\":{\\"code\\":int,\\"message\\":str}}"],5.0]',
       era = 'legacy', introduced_at = now(), introduce_at = now() + interval '1 hour',
       introduction = json_build_object(
           'protocol_versions', '["2025-11-25"]'::json,
           'server_info', json_build_object('name', 'server-' || id, 'version', '1.2.3'),
           'capabilities', '{"tools":{"listChanged":true},"resources":{"subscribe":false},"logging":{}}'::json,
           'tools_count', 5, 'prompts_count', 1, 'resources_count', 2, 'templates_count', 0,
           'incomplete', '{}'::json,
           'digest', json_build_object('raw', repeat('0', 64), 'prompt', repeat('1', 64), 'contract', repeat('2', 64)))
"""
CHECK = """
WITH checked AS (
    INSERT INTO registry.endpoint_health
           (endpoint_id, verdict, response_time_ms, status_code, error_message, checked_at, up_at, since, times)
    SELECT e.id, (CASE WHEN s.status <> 'error' THEN CASE WHEN e.id % 20 = 0 THEN 'gated' ELSE 'healthy' END
                       WHEN e.id % 4 = 0 THEN 'http_error' ELSE 'timeout' END)::metrics.verdict, 12, 200,
           CASE WHEN s.status = 'error' THEN 'No answer within 5 seconds' END, now() - interval '1 day',
           now() - interval '1 day', now() - interval '3 days', 8000
      FROM registry.endpoints AS e
      JOIN registry.mcp_servers AS s ON s.id = e.server_id
     WHERE e.id % 100 > 0
    RETURNING endpoint_id, verdict
)
INSERT INTO metrics.endpoint_changes
       (server_id, endpoint_id, url, change, from_verdict, verdict, reason, evidence, occurred_at)
SELECT e.server_id, e.id, e.url, 'verdict', 'healthy', verdict, 'No answer within 5 seconds',
       json_build_array(json_build_object('asked', 'POST initialize', 'status', 502, 'media_type', 'text/html',
                                          'excerpt', repeat('x', 300), 'took_ms', 12)), now() - interval '3 days'
  FROM checked
  JOIN registry.endpoints AS e ON e.id = checked.endpoint_id
 WHERE NOT metrics.is_up(verdict)
"""
FILL_METADATA = """
INSERT INTO registry.server_metadata (server_id, author, repository_url, documentation_url, tags)
SELECT id, 'Someone', 'https://git.example.com/' || name, NULL, '["data", "cloud"]'
  FROM registry.mcp_servers
"""


@contextmanager
def postgres() -> Generator[str]:
    """A Postgres of our own for the time of a measurement; gives its URL.

    Without fsync: a shared disk's waits would drown what the code costs, and every side is measured on the same one.
    """
    with TemporaryDirectory(prefix="registry-bench-") as folder, Postgres(Path(folder) / "data", durable=False) as url:
        yield url


def database(server_url: str, name: str) -> str:
    """Create an empty database; give its URL."""
    with psycopg.Connection.connect(server_url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


def execute(url: str, *statements: LiteralString) -> None:
    """Run statements, each in a transaction of its own."""
    with psycopg.Connection.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def filled(server_url: str, name: str, servers: int) -> str:
    """Create a database with the registry's schema and so many servers, vacuumed and analyzed; give its URL."""
    url = database(server_url, name)
    migrate(url)
    schemas = [schema_of(random.Random(position)) for position in range(TOOLS)]
    with psycopg.Connection.connect(url, autocommit=True) as connection:
        connection.execute(
            FILL,
            {
                "servers": servers,
                "things": THINGS,
                "n_things": len(THINGS),
                "vendors": VENDORS,
                "n_vendors": len(VENDORS),
                "tools": TOOLS,
            },
        )
        connection.execute(
            FILL_TOOLS,
            {
                "tools": TOOLS,
                "schemas": [json.dumps(schema, separators=(",", ":")) for schema in schemas],
                "descriptions": [sentence(random.Random(position)) for position in range(TOOLS)],
            },
        )
        connection.execute(FILL_METADATA)
        connection.execute(FILL_ENDPOINTS)
        connection.execute(INTRODUCE)
        connection.execute(CHECK)
        # Vacuum alone empties the list of what a trigram index has not sorted in yet, which each search would read.
        connection.execute("VACUUM ANALYZE")
    return url


def registration(number: int) -> dict[str, Any]:
    """A registration as clients send it; equal numbers give equal ones."""
    draw = random.Random(number)
    thing, vendor = draw.choice(THINGS), draw.choice(VENDORS)
    return {
        "name": f"{vendor}/{thing}-mcp-{number:x}",
        "display_name": f"{vendor.title()} {thing.title()} MCP Server",
        "description": f"Gives agents access to {thing} of {vendor}: read, search, create and update.",
        "server_type": draw.choice(("official", "community", "mock")),
        # An address and no name: the guard looks a name up, and what a resolver takes is not ours to measure.
        "endpoint_url": f"https://93.184.216.34/{vendor}/{thing}/{number}/mcp",
        "version": f"1.{number % 20}.{number % 7}",
        "metadata": {
            "author": f"{vendor.title()} Inc.",
            "repository_url": f"https://git.example.com/{vendor}/{thing}",
            "documentation_url": f"https://docs.example.com/{thing}",
            "tags": [thing, "cloud"],
        },
        "tools": [tool(draw, thing, place) for place in range(TOOLS)],
    }


def tool(draw: random.Random, thing: str, place: int) -> dict[str, Any]:
    """One tool of a registration."""
    verb = ("list", "get", "search", "create", "update")[place % 5]
    return {
        "name": f"{verb}_{thing}",
        "description": sentence(draw),
        "input_schema": schema_of(draw),
        "category": draw.choice(("data", "search", "admin")),
    }


def schema_of(draw: random.Random) -> dict[str, Any]:
    """An input schema of a common size: 150 to 1,000 bytes."""
    properties: dict[str, Any] = {}
    for _ in range(draw.choice((1, 2, 3, 4, 6))):
        name = f"{draw.choice(THINGS)}_{draw.choice(('id', 'name', 'filter', 'limit', 'since'))}"
        kind = draw.choice(("string", "string", "integer", "boolean"))
        properties[name] = {"type": kind, "title": name.replace("_", " ").title(), "description": sentence(draw)}
    return {"type": "object", "properties": properties, "required": list(properties)[:2], "additionalProperties": False}


def sentence(draw: random.Random) -> str:
    """A description."""
    return f"Work with {' and '.join(draw.sample(THINGS, draw.choice((2, 4, 8))))} of the account."
