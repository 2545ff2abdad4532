"""The catalogue: register, replace, list, read, change, transfer and delete servers.

Statements stand beside the function that runs them. Each is one round trip and atomic by itself, so that no client
can leave half of a registration behind. What goes out is rendered as JSON by Postgres.

Who writes says for whom, and the statement that writes decides whether this caller may: it finds no row of another
team, and writes the entry of the audit. Why it found none is asked afterwards, to say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, LiteralString, NamedTuple

from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller
from mcp_registry.catalogue import cursor, folding, offers
from mcp_registry.catalogue.cursor import Filters
from mcp_registry.errors import (
    ConflictingServer,
    DuplicateServer,
    Fault,
    Forbidden,
    HeldName,
    QuotaExceeded,
    RegistrationRequired,
    ServerNotFound,
    TeamNotFound,
    Unavailable,
    ValidationFailed,
)

if TYPE_CHECKING:  # the functions that only read need no validation library
    from mcp_registry.catalogue.registration import Registration

# A replacement that lost every race for this long is told to come back; each lost race means that another one won.
MAX_RACES = 50
# Of a search so many matches are counted exactly. The statement counts one more, as a literal.
MAX_COUNTED = 1_000
MEGABYTE = 1024 * 1024
# The verdict of a server that no check has been to yet, at the address that it has.
UNKNOWN = "unknown"
# The largest bigint of Postgres: where there is no bound.
MAX_ID = 2**63 - 1
# Of one server, those that are retired not counted. So many that are retired are kept besides, the newest.
MAX_ENDPOINTS = 100
# For how many seconds the name of a removed server may be held: a minute to a week.
MIN_HOLD, MAX_HOLD = 60, 7 * 24 * 3600
# So many names of one team may be held: they are no servers any more, which the quota would count.
MAX_HELD = 1_000

# An endpoint to be looked at now: the moment by the database's clock, and the fields of `messages.Visit`.
Visit = tuple[datetime, int, int, str, str | None, str | None, str | None]

# Whether the caller may change a server, or a name that is held.
_IS_THEIRS: LiteralString = "(%(caller_rules)s OR owner = %(caller_team)s)"
# An entry of the audit begins with who did it.
_AUDIT: LiteralString = """
    INSERT INTO registry.audit (actor, role, team, request_id, address, action, target, before, after)
    SELECT %(caller)s, %(caller_role)s::registry.role, %(caller_team)s, %(request_id)s, %(address)s,"""
# A server `s` as the audit tells it: of what it offers, the digest.
_FIELDS: LiteralString = """
                 'endpoint_url', s.endpoint_url, 'health_url', s.health_url, 'server_type', s.server_type,
                 'version', s.version, 'tools_count', s.tools_count, 'offer_digest', encode(s.offer_digest, 'hex')"""
_TOLD: LiteralString = f"jsonb_build_object({_FIELDS})"
# One that has gone, or is there from now on.
_TOLD_WHOLE: LiteralString = f"jsonb_build_object('owner', s.owner, 'status', s.status,{_FIELDS})"
# The team in whose prefix a name is, the longest prefix first. A name has the keys by which two names are one
# (`names.Keys`): where one of them begins with that of the prefix and goes on, there is a name within the prefix that
# the registry takes for this one. So `paymentsx` is within `payments-`: it is the same name as `payments-x`. What
# follows a number is another number, but for 0 and 1, which read as letters. A namespace keeps its separators:
# `paymentsx/a` is not `payments-x/a`. A function would cost each registration its call, even where there are no
# prefixes.
_BEGINS: LiteralString = """
          (starts_with({key}, {prefix}) AND length({key}) > length({prefix})
           AND NOT (p.numbered AND strpos('23456789', substr({key}, length({prefix}) + 1, 1)) > 0))"""
_PREFIX_TEAM: LiteralString = f"""
(SELECT p.team
   FROM registry.team_prefixes AS p
  WHERE CASE WHEN strpos(%(name)s, '/') > 0 AND p.namespace IS NOT NULL
             THEN starts_with(registry.namespace_key(%(name)s), p.namespace)
                  OR starts_with(registry.namespace_key(translate(%(name)s, 'I', 'l')), p.namespace)
             ELSE {_BEGINS.format(key="%(name_key)s::varchar", prefix="p.key")}
               OR {_BEGINS.format(key="%(look_key)s::varchar", prefix="p.key")}
               OR {_BEGINS.format(key="%(figure_key)s::varchar", prefix="p.figure_key")} END
  ORDER BY length(p.key) DESC, p.prefix
  LIMIT 1)"""  # noqa: S608 - of literals

# No row where there is no room (Quota), where the name is held, where it is one that exists, by whichever of the
# three keys, or is in a prefix of another team; nor where the caller's own team has gone.
# canonical_name is what the release before 0003 finds a server by, unless a server has it whose name differs by the
# keys; a trigger could say it, for 45 us more. content_digest is read by the release before alone.
REGISTER: LiteralString = f"""
WITH server AS (
    INSERT INTO registry.mcp_servers
           (name, name_key, look_key, figure_key, canonical_name, display_name, search_fold, description, server_type,
            endpoint_url, health_url, version, tools_count, bytes, body_digest, content_digest, offer_digest,
            endpoint_id, owner)
    SELECT %(name)s, %(name_key)s, %(look_key)s, %(figure_key)s, CASE WHEN taken.id IS NULL THEN before.name END,
           %(display_name)s, %(search_fold)s, %(description)s, %(server_type)s::registry.server_type,
           %(endpoint_url)s, %(health_url)s, %(version)s, %(tools_count)s, %(bytes)s, %(body_digest)s,
           %(body_digest)s, %(offer_digest)s, nextval('registry.endpoints_id_seq'), team.name
      FROM (SELECT translate(%(look_key)s, 'i-', 'l'), {_PREFIX_TEAM}) AS before (name, team)
      JOIN registry.teams AS team ON team.name = COALESCE(before.team, %(caller_team)s)
      LEFT JOIN registry.mcp_servers AS taken ON taken.canonical_name = before.name
     WHERE (%(caller_rules)s OR team.name = %(caller_team)s)
       AND (SELECT sum(servers) < %(max_servers)s AND sum(bytes) + %(bytes)s <= %(max_bytes)s
              FROM registry.server_counts)
       AND NOT EXISTS (SELECT
                         FROM registry.held_names
                        WHERE held_until > now()
                          AND (name_key = %(name_key)s::varchar OR look_key = %(look_key)s::varchar
                               OR figure_key = %(figure_key)s::varchar))
        ON CONFLICT DO NOTHING
    RETURNING *
), endpoint AS (
    INSERT INTO registry.endpoints
           (id, server_id, url, health_url, declared, lease_until, body_digest, offer_digest, visited_at, introduce_at)
    SELECT endpoint_id, id, endpoint_url, health_url, %(lease)s::integer IS NULL,
           now() + make_interval(secs => %(lease)s::integer), body_digest, offer_digest, now(),
           now() + interval '30 seconds'
      FROM server
), metadata AS (
    INSERT INTO registry.server_metadata (server_id, author, repository_url, documentation_url, tags, tags_fold)
    SELECT id, %(author)s, %(repository_url)s, %(documentation_url)s, %(tags)s::jsonb,
           %(tags_fold)s::text[]
      FROM server
     WHERE %(has_metadata)s
), tools AS (
    INSERT INTO registry.tools
           (server_id, position, name, title, description, input_schema, output_schema, annotations, category, extra)
    SELECT server.id, tool.position, tool.name, tool.title, tool.description, tool.input_schema, tool.output_schema,
           tool.annotations, tool.category, tool.extra
      FROM server
     CROSS JOIN json_to_recordset(%(tools)s::json)
        AS tool (position integer, name text, title text, description text, input_schema json, output_schema json,
                 annotations json, category text, extra json)
), audit AS ({_AUDIT}
           'server.registered', 'server:' || s.name, NULL, {_TOLD_WHOLE}
      FROM server AS s
)
SELECT id, name, status::text, registry.rfc3339(created_at), endpoint_id, now()
  FROM server
"""  # noqa: S608 - of literals

# Whether the last visit of an endpoint that a request sent is so long ago that another may be sent: else each worker of
# a server, and each of many requests, would send one. The statement that writes visited_at says whether it took it.
_MAY_BE_VISITED: LiteralString = "COALESCE(e.visited_at < now() - interval '2 seconds', true)"
# By the moment of the statement, for RETURNING knows the old row in Postgres 18 alone.
_IS_VISITED: LiteralString = "COALESCE(e.visited_at = statement_timestamp(), false)"
# Whether an endpoint is to be looked at because it announces itself.
_LOOKED_FOR: LiteralString = f"NOT COALESCE(metrics.is_up(h.verdict), false) AND {_MAY_BE_VISITED}"
# An announcement of an endpoint that is up is written once for each length of its lease.
_LEASE_IS_OVER: LiteralString = "COALESCE(e.lease_until < now(), true)"

# The server that a name is taken for, and of its endpoints the one that a registration names. Of two servers, because
# a name may be one with each of them, the one that is spelled so. `rival`: the other endpoint that offers what the
# server does and is up, or is not checked yet and about to be: the declared one, else the oldest.
FIND: LiteralString = f"""
SELECT s.id, s.name, s.status::text, registry.rfc3339(s.created_at), s.revision, s.body_digest, s.offer_digest, s.bytes,
       e.id, e.health_url, e.declared, e.retired_at IS NOT NULL, e.conflict_at IS NOT NULL, e.body_digest,
       e.offer_digest, e.era, h.verdict::text, e.id = s.endpoint_id, {_LOOKED_FOR}, {_LEASE_IS_OVER},
       EXISTS (SELECT FROM registry.endpoints AS o WHERE o.server_id = s.id AND o.id IS DISTINCT FROM e.id),
       (SELECT count(*) FROM registry.endpoints AS o
         WHERE o.server_id = s.id AND o.id IS DISTINCT FROM e.id AND o.retired_at IS NULL),
       rival.url, rival.declared, rival.came_first, s.owner
  FROM registry.mcp_servers AS s
  LEFT JOIN registry.endpoints AS e ON e.server_id = s.id AND e.url = %(endpoint_url)s::varchar
  LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
  LEFT JOIN LATERAL (SELECT o.url, o.declared, (o.created_at, o.id) < (e.created_at, e.id) AS came_first
                       FROM registry.endpoints AS o
                       LEFT JOIN registry.endpoint_health AS found ON found.endpoint_id = o.id
                      WHERE o.server_id = s.id
                        AND o.id IS DISTINCT FROM e.id
                        AND o.offer_digest IS NOT DISTINCT FROM s.offer_digest
                        AND o.retired_at IS NULL
                        AND COALESCE(metrics.is_up(found.verdict), o.moved_at > now() - interval '5 minutes')
                      ORDER BY o.declared DESC, o.created_at, o.id
                      LIMIT 1) AS rival ON true
 WHERE s.name_key = %(name_key)s
    OR s.look_key = %(look_key)s
    OR s.figure_key = %(figure_key)s
 ORDER BY s.name = %(name)s DESC, s.id
 LIMIT 1
"""  # noqa: S608 - of literals

# Whether a registration may be a new release of a server: they have a tool in common, or the server has none.
MAY_BE_RELEASE = """
SELECT COALESCE(bool_or(name = ANY (%(names)s::text[])), true)
  FROM registry.tools
 WHERE server_id = %(id)s
"""

# Of an endpoint that a server which exists is given: its number, and whether it is the one to use from now on. It is
# where it is set by hand; where it announces itself, only if the one in use is known to be down, has gone, or is in
# conflict. Who is up of several is for the checks to say (registry.use_endpoints).
_OWN: LiteralString = """
own AS (
    SELECT COALESCE(%(endpoint)s::bigint, nextval('registry.endpoints_id_seq')) AS id,
           NOT EXISTS (SELECT FROM registry.mcp_servers AS s
                         JOIN registry.endpoints AS e ON e.id = s.endpoint_id
                         LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
                        WHERE s.id = %(id)s
                          AND %(lease)s::integer IS NOT NULL
                          AND e.url <> %(endpoint_url)s::varchar
                          AND e.retired_at IS NULL
                          AND e.conflict_at IS NULL
                          AND NOT (%(is_put_back)s AND e.offer_digest = s.offer_digest)
                          AND (e.declared OR COALESCE(metrics.is_up(h.verdict), true))) AS is_used
)"""
_USE: LiteralString = """
           endpoint_id = CASE WHEN own.is_used THEN own.id ELSE s.endpoint_id END,
           endpoint_url = CASE WHEN own.is_used THEN %(endpoint_url)s::varchar ELSE s.endpoint_url END,
           health_url = CASE WHEN own.is_used THEN %(health_url)s::varchar ELSE s.health_url END,
           revision = revision + 1"""
# Writes the endpoint of `server`. Who was away is the youngest, and nothing is known of it any more. Of who has another
# health URL only the pulse is forgotten that asked the one before; what was asked before this counts no more, as it may
# have been asked there. What is to be looked at and not visited is looked at by the dispatcher.
_ENDPOINT: LiteralString = f"""
endpoint AS (
    INSERT INTO registry.endpoints AS e
           (id, server_id, url, health_url, declared, created_at, lease_until, body_digest, offer_digest, visited_at,
            introduce_at)
    SELECT own.id, server.id, %(endpoint_url)s, %(health_url)s, %(lease)s::integer IS NULL, statement_timestamp(),
           now() + make_interval(secs => %(lease)s::integer), %(body_digest)s, %(offer_digest)s, statement_timestamp(),
           now() + interval '30 seconds'
      FROM server
     CROSS JOIN own
        ON CONFLICT (server_id, url) DO UPDATE
       SET health_url = excluded.health_url,
           declared = e.declared OR excluded.declared,
           created_at = CASE WHEN e.retired_at IS NULL THEN e.created_at ELSE excluded.created_at END,
           announced_at = now(),
           lease_until = excluded.lease_until,
           moved_at = CASE WHEN %(is_moved)s THEN now() ELSE e.moved_at END,
           retired_at = NULL,
           body_digest = excluded.body_digest,
           offer_digest = excluded.offer_digest,
           conflict_at = NULL,
           pulse = CASE WHEN NOT %(is_back)s AND NOT (%(is_moved)s AND e.pulse LIKE '["health_url",%%')
                        THEN e.pulse END,
           visited_at = CASE WHEN %(is_looked_for)s AND {_MAY_BE_VISITED} THEN excluded.visited_at
                             ELSE e.visited_at END,
           introduce_at = CASE WHEN NOT %(is_looked_for)s THEN e.introduce_at
                               WHEN {_MAY_BE_VISITED} THEN excluded.introduce_at
                               ELSE LEAST(e.introduce_at, excluded.introduce_at) END
    RETURNING e.server_id, e.id, e.url, e.declared, e.created_at = statement_timestamp() AS is_added,
              {_IS_VISITED} AS is_visited
), forgotten AS (
    DELETE FROM registry.endpoint_health
     USING server
     WHERE endpoint_id = %(endpoint)s
       AND %(is_back)s
)"""  # noqa: S608 - of literals
# Of those that are retired so many are kept as a server may have endpoints: who announces a new address each minute
# would leave a thousand a day. A registration by hand removes them all.
_PRUNED: LiteralString = """
pruned AS (
    DELETE FROM registry.endpoints AS e
     USING server
     WHERE %(lease)s::integer IS NOT NULL
       AND e.id IN (SELECT id
                      FROM (SELECT o.id, o.retired_at, row_number() OVER (ORDER BY o.retired_at DESC, o.id DESC) AS n
                              FROM registry.endpoints AS o
                             WHERE o.server_id = %(id)s
                               AND o.url <> %(endpoint_url)s::varchar
                               AND o.retired_at IS NOT NULL) AS retired
                     WHERE n > 100
                        OR retired_at < now() - interval '1 day')
)"""
_ADDED: LiteralString = """
    SELECT server_id, id, url, 'added',
           CASE WHEN declared THEN 'It was registered by hand' ELSE 'It announced itself' END
      FROM endpoint
     WHERE is_added"""

# Compare-and-set on the revision: where the row has moved on since it was read, the update finds nothing and so does
# everything that hangs on it. Without that, a replacement that waited for another would delete the tools that it
# saw and not the ones that the other has written meanwhile. Tools that stay keep their id, and with it their metrics.
#
# The row is locked first, so that `before` is its newest version: a check may have changed the address in use.
REPLACE: LiteralString = f"""
WITH {_OWN}, before AS (
    SELECT s.id, s.offer_digest, {_TOLD} AS told
      FROM registry.mcp_servers AS s
     WHERE s.id = %(id)s
       AND revision = %(revision)s
       AND {_IS_THEIRS}
       AND (bytes >= %(bytes)s
            OR %(bytes)s - bytes + (SELECT sum(bytes) FROM registry.server_counts) <= %(max_bytes)s)
       FOR NO KEY UPDATE
), server AS (
    UPDATE registry.mcp_servers AS s
       SET display_name = %(display_name)s,
           search_fold = %(search_fold)s,
           description = %(description)s,
           server_type = %(server_type)s::registry.server_type,
           version = %(version)s,
           tools_count = %(tools_count)s,
           bytes = %(bytes)s,
           body_digest = %(body_digest)s,
           content_digest = %(body_digest)s,
           offer_digest = %(offer_digest)s,
           updated_at = now(),{_USE}
      FROM own
     CROSS JOIN before
     WHERE s.id = before.id
    RETURNING s.id, s.name, before.offer_digest AS offered, before.told AS before, {_TOLD} AS after
), {_ENDPOINT}, {_PRUNED}, removed AS (
    DELETE FROM registry.endpoints AS e
     USING server
     WHERE e.server_id = server.id
       AND e.url <> %(endpoint_url)s::varchar
       AND %(lease)s::integer IS NULL
    RETURNING e.server_id, e.id, e.url
), settled AS (
    UPDATE registry.endpoints AS e
       SET conflict_at = CASE WHEN e.conflict_at IS NULL THEN now() END
      FROM server
     WHERE e.server_id = server.id
       AND e.url <> %(endpoint_url)s::varchar
       AND %(lease)s::integer IS NOT NULL
       AND e.retired_at IS NULL
       AND CASE WHEN e.conflict_at IS NOT NULL THEN e.offer_digest = %(offer_digest)s
                ELSE %(is_put_back)s AND e.offer_digest = server.offered END
    RETURNING e.server_id, e.id, e.url, e.conflict_at
), changes AS (
    INSERT INTO metrics.endpoint_changes (server_id, endpoint_id, url, change, reason)
{_ADDED}
     UNION ALL
    SELECT server_id, id, url, 'removed', 'The server was registered by hand at another address'
      FROM removed
     UNION ALL
    SELECT server_id, id, url, 'conflict', 'It offers something else than the endpoint that was first under this name'
      FROM settled
     WHERE conflict_at IS NOT NULL
), dropped_metadata AS (
    DELETE FROM registry.server_metadata
     USING server
     WHERE server_id = server.id
       AND NOT %(has_metadata)s
), metadata AS (
    INSERT INTO registry.server_metadata (server_id, author, repository_url, documentation_url, tags, tags_fold)
    SELECT id, %(author)s, %(repository_url)s, %(documentation_url)s, %(tags)s::jsonb,
           %(tags_fold)s::text[]
      FROM server
     WHERE %(has_metadata)s
        ON CONFLICT (server_id) DO UPDATE
       SET author = excluded.author,
           repository_url = excluded.repository_url,
           documentation_url = excluded.documentation_url,
           tags = excluded.tags,
           tags_fold = excluded.tags_fold
), tool AS (
    SELECT *
      FROM json_to_recordset(%(tools)s::json)
        AS tool (position integer, name text, title text, description text, input_schema json, output_schema json,
                 annotations json, category text, extra json)
), dropped_tools AS (
    DELETE FROM registry.tools AS kept
     USING server
     WHERE kept.server_id = server.id
       AND kept.name NOT IN (SELECT name FROM tool)
), tools AS (
    INSERT INTO registry.tools
           (server_id, position, name, title, description, input_schema, output_schema, annotations, category, extra)
    SELECT server.id, tool.position, tool.name, tool.title, tool.description, tool.input_schema, tool.output_schema,
           tool.annotations, tool.category, tool.extra
      FROM server
     CROSS JOIN tool
     ORDER BY tool.position
        ON CONFLICT (server_id, name) DO UPDATE
       SET position = excluded.position,
           title = excluded.title,
           description = excluded.description,
           input_schema = excluded.input_schema,
           output_schema = excluded.output_schema,
           annotations = excluded.annotations,
           category = excluded.category,
           extra = excluded.extra
), audit AS ({_AUDIT}
           'server.updated', 'server:' || server.name, registry.changed(told.before, told.after),
           registry.changed(told.after, told.before)
      FROM server
     CROSS JOIN endpoint
      LEFT JOIN registry.endpoints AS e ON e.id = %(endpoint)s
     CROSS JOIN LATERAL (SELECT server.before
                                || jsonb_build_object('declared', e.declared,
                                                      'retired_at', registry.rfc3339(e.retired_at),
                                                      'conflict_at', registry.rfc3339(e.conflict_at),
                                                      'removed_endpoints',
                                                      (SELECT jsonb_agg(url ORDER BY id) FROM removed),
                                                      'conflicting_endpoints',
                                                      (SELECT jsonb_agg(url ORDER BY id) FROM settled
                                                        WHERE conflict_at IS NULL)),
                                server.after
                                || jsonb_build_object('declared', CASE WHEN e.id IS NOT NULL THEN endpoint.declared END,
                                                      'added_endpoint',
                                                      CASE WHEN endpoint.is_added THEN endpoint.url END,
                                                      'conflicting_endpoints',
                                                      (SELECT jsonb_agg(url ORDER BY id) FROM settled
                                                        WHERE conflict_at IS NOT NULL))
                        ) AS told (before, after)
)
SELECT id, now(), is_visited
  FROM endpoint
"""  # noqa: S608 - of literals

# An endpoint more, or one that has come back, of a server that offers what it does; its conflict is over. Others may do
# so at the same moment: the revision counts only where the server is to use this one, and all of them are counted.
# The row is locked first, as by REPLACE: the audit tells which address a check has put in use meanwhile.
ADD_ENDPOINT: LiteralString = f"""
WITH {_OWN}, before AS (
    SELECT s.id, s.endpoint_url
      FROM registry.mcp_servers AS s
     CROSS JOIN own
     WHERE s.id = %(id)s
       AND (revision = %(revision)s OR NOT own.is_used AND offer_digest = %(offer_digest)s)
       AND {_IS_THEIRS}
       AND (NOT %(is_one_more)s OR registry.live_endpoints(s.id) < 100)
       FOR NO KEY UPDATE OF s
), server AS (
    UPDATE registry.mcp_servers AS s
       SET offer_digest = %(offer_digest)s,{_USE}
      FROM own
     CROSS JOIN before
     WHERE s.id = before.id
    RETURNING s.id, s.name, before.endpoint_url AS was_at, s.endpoint_url AS is_at
), {_ENDPOINT}, {_PRUNED}, changes AS (
    INSERT INTO metrics.endpoint_changes (server_id, endpoint_id, url, change, reason)
{_ADDED}
), audit AS ({_AUDIT}
           'server.endpoint', 'server:' || server.name, registry.changed(told.before, told.after),
           jsonb_build_object('endpoint', %(endpoint_url)s::text) || registry.changed(told.after, told.before)
      FROM server
      LEFT JOIN registry.endpoints AS e ON e.id = %(endpoint)s
     CROSS JOIN LATERAL (SELECT jsonb_build_object('endpoint_url', server.was_at)
                                || CASE WHEN e.id IS NULL THEN '{{}}'
                                        ELSE jsonb_build_object('health_url', e.health_url, 'declared', e.declared,
                                                                'retired_at', registry.rfc3339(e.retired_at),
                                                                'conflict_at', registry.rfc3339(e.conflict_at),
                                                                'offer_digest', encode(e.offer_digest, 'hex')) END,
                                jsonb_build_object('endpoint_url', server.is_at,
                                                   'health_url', %(health_url)s::text, 'retired_at', NULL,
                                                   'declared', COALESCE(e.declared, %(lease)s::integer IS NULL),
                                                   'conflict_at', NULL,
                                                   'offer_digest', encode(%(offer_digest)s, 'hex'))
                        ) AS told (before, after)
)
SELECT id, now(), is_visited
  FROM endpoint
"""  # noqa: S608 - of literals

# An endpoint goes on as it is. No row where it has gone meanwhile, or to another team. It comes each few minutes and
# changes nothing that the audit tells.
RENEW: LiteralString = f"""
UPDATE registry.endpoints AS e
   SET announced_at = now(),
       lease_until = now() + make_interval(secs => %(lease)s::integer),
       body_digest = %(body_digest)s,
       visited_at = CASE WHEN %(is_looked_for)s AND {_MAY_BE_VISITED} THEN statement_timestamp() ELSE visited_at END,
       introduce_at = CASE WHEN %(is_looked_for)s AND {_MAY_BE_VISITED} THEN now() + interval '30 seconds'
                           ELSE introduce_at END
 WHERE id = %(endpoint)s
   AND retired_at IS NULL
   AND offer_digest = %(offer_digest)s
   AND EXISTS (SELECT FROM registry.mcp_servers WHERE id = e.server_id AND {_IS_THEIRS})
RETURNING e.id, now(), {_IS_VISITED}
"""  # noqa: S608 - of literals

# An endpoint says to be a server that another one was before it. No row where that is known, or it is none of the
# server's. The server's row is locked first, as by all who change whose it is: else this might come after a transfer.
DISPUTE: LiteralString = f"""
WITH theirs AS (
    SELECT s.id, s.name
      FROM registry.endpoints AS e
      JOIN registry.mcp_servers AS s ON s.id = e.server_id
     WHERE e.id = %(endpoint)s
       AND {_IS_THEIRS}
       FOR NO KEY UPDATE OF s
), disputed AS (
    UPDATE registry.endpoints AS e
       SET conflict_at = now()
      FROM theirs
     WHERE e.id = %(endpoint)s
       AND e.server_id = theirs.id
       AND e.conflict_at IS NULL
       AND e.retired_at IS NULL
    RETURNING e.server_id, e.id, e.url, e.conflict_at, theirs.name
), changes AS (
    INSERT INTO metrics.endpoint_changes (server_id, endpoint_id, url, change, reason)
    SELECT server_id, id, url, 'conflict', 'It offers something else than the endpoint that was first under this name'
      FROM disputed
), audit AS ({_AUDIT}
           'server.endpoint', 'server:' || name, NULL,
           jsonb_build_object('endpoint', url, 'conflict_at', registry.rfc3339(conflict_at))
      FROM disputed
)
SELECT id
  FROM disputed
"""  # noqa: S608 - of literals

# Apart from what it follows: a statement does not see what it writes itself.
USE_ENDPOINT = """
SELECT registry.use_endpoints(ARRAY[%(id)s::bigint])
"""

# How much the registry holds; whose prefix a name is in, and whether the caller's team exists; and what is held of this
# name: it, its team, and for how many seconds more. What another team holds comes first.
HELD: LiteralString = f"""
SELECT sum(servers)::bigint, sum(bytes)::bigint, {_PREFIX_TEAM},
       EXISTS (SELECT FROM registry.teams WHERE name = %(caller_team)s), held.name, held.owner, held.seconds
  FROM registry.server_counts
  LEFT JOIN (SELECT name, owner, ceil(extract(epoch FROM held_until - now()))::integer AS seconds
               FROM registry.held_names
              WHERE held_until > now()
                AND (name_key = %(name_key)s::varchar OR look_key = %(look_key)s::varchar
                     OR figure_key = %(figure_key)s::varchar)
              ORDER BY {_IS_THEIRS}, held_until DESC
              LIMIT 1) AS held ON true
 GROUP BY held.name, held.owner, held.seconds
"""  # noqa: S608 - of literals

# However the name is spelled. No row where it is not held, or by another team.
END_HOLD: LiteralString = f"""
WITH released AS (
    DELETE FROM registry.held_names
     WHERE name_key = registry.name_key(%(name)s)
       AND held_until > now()
       AND {_IS_THEIRS}
    RETURNING name, owner, held_until
), audit AS ({_AUDIT}
           'name.released', 'name:' || name,
           jsonb_build_object('owner', owner, 'held_until', registry.rfc3339(held_until)), NULL
      FROM released
)
SELECT name
  FROM released
"""  # noqa: S608 - of literals

# Whose a server is, and a name that is held.
WHOSE = """
SELECT name, owner
  FROM registry.mcp_servers
 WHERE id = %(id)s
"""
WHOSE_HOLD = """
SELECT name, owner
  FROM registry.held_names
 WHERE name_key = registry.name_key(%(name)s)
   AND held_until > now()
"""
CONTACT = """
SELECT contact
  FROM registry.teams
 WHERE name = %(team)s
"""

# By hand: whether a server of the caller's was sent as this, by hand as far as is known, and has no endpoint besides.
HAS_DIGEST: LiteralString = f"""
SELECT EXISTS (SELECT
                 FROM registry.mcp_servers AS s
                 JOIN registry.endpoints AS e ON e.server_id = s.id
                WHERE s.body_digest = %(body_digest)s
                  AND {_IS_THEIRS}
                GROUP BY s.id
               HAVING bool_and(e.declared AND e.id = s.endpoint_id))
"""  # noqa: S608 - of literals

# The endpoint that was announced by this, where it is still one of its server, and that is the caller's.
ANNOUNCED: LiteralString = f"""
SELECT s.id, e.id, e.url, e.health_url, e.era, h.verdict::text, e.offer_digest, s.status::text, {_LOOKED_FOR},
       {_LEASE_IS_OVER}
  FROM registry.endpoints AS e
  JOIN registry.mcp_servers AS s ON s.id = e.server_id AND s.offer_digest = e.offer_digest
  LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
 WHERE e.body_digest = %(body_digest)s
   AND e.retired_at IS NULL
   AND e.conflict_at IS NULL
   AND {_IS_THEIRS}
 LIMIT 1
"""  # noqa: S608 - of literals

# How many tools are handed out of a server `s`. Where its policy is `auto`, as many as it has registered: few servers
# have a policy of their own, and those are looked up once for all of a page.
_HANDED_OUT_COUNT: LiteralString = f"""
                  CASE WHEN %(policy)s::text = 'auto'
                            AND s.id NOT IN (SELECT server_id FROM registry.ledger WHERE policy IS NOT NULL)
                       THEN s.tools_count
                       ELSE COALESCE((SELECT CASE COALESCE(l.policy, %(policy)s::registry.policy)
                                             WHEN 'auto' THEN s.tools_count
                                             ELSE (SELECT cardinality(n.tools) FROM registry.snapshots AS n
                                                    WHERE n.id = {offers.SERVED}) END
                                        FROM registry.ledger AS l WHERE l.server_id = s.id), 0) END"""  # noqa: S608 - of literals
# A server `s` of a page, with the last check `h` of its endpoint. Put together by hand, because row_to_json looks up
# the kind of each field in each row, which is a fifth of a page (2026-11-30). A status is frozen where the last check
# found nothing good and the server was not called down for it, because the fault may be ours.
_ITEM: LiteralString = f"""concat('{{"id":', s.id, ',"name":', to_json(s.name),
                  ',"display_name":', to_json(s.display_name),
                  ',"owner":"', s.owner, '","server_type":"', s.server_type, '","status":"', s.status,
                  '","verdict":"', COALESCE(h.verdict::text, 'unknown'),
                  '","frozen":', CASE WHEN s.status = 'active' AND NOT metrics.is_up(h.verdict) THEN 'true'
                                      ELSE 'false' END,
                  ',"version":', COALESCE(to_json(s.version)::text, 'null'),
                  ',"last_health_check":', COALESCE('"' || registry.rfc3339(h.checked_at) || '"', 'null'),
                  ',"tools_count":', {_HANDED_OUT_COUNT}, '}}')"""

# One page in id order, which is the order of registration; one row more than asked for says whether another follows.
# The inner LIMIT is a literal, MAX_LIMIT and that row, because a plan that is kept knows literals only: it would take
# %(limit)s for a tenth of the table.
LIST: LiteralString = f"""
WITH page AS (
    SELECT id, name, display_name, owner, server_type, status, version, tools_count, endpoint_id
      FROM (SELECT *
              FROM registry.mcp_servers
             WHERE id > %(after)s
             ORDER BY id
             LIMIT 1001) AS following
     ORDER BY id
     LIMIT %(limit)s + 1
), shown AS (
    SELECT s.id, {_ITEM} AS json
      FROM (SELECT * FROM page ORDER BY id LIMIT %(limit)s) AS s
      LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = s.endpoint_id
     ORDER BY s.id
)
SELECT (SELECT '[' || COALESCE(string_agg(json, ','), '') || ']' FROM shown),
       (SELECT sum(servers)::bigint FROM registry.server_counts),
       CASE WHEN (SELECT count(*) FROM page) > %(limit)s THEN (SELECT max(id) FROM shown) END
"""  # noqa: S608 - of two literals

# Whether a server is one of those that are asked for. Nobody has been up or down where there was no check. `v` is the
# verdict of the endpoint that it uses: a rare one leads to its servers by two indexes, and a common one is soon met
# with in the order of the page.
_MATCHES: LiteralString = """
           (%(status)s::registry.server_status IS NULL OR status = %(status)s::registry.server_status)
       AND (%(type)s::registry.server_type IS NULL OR server_type = %(type)s::registry.server_type)
       AND (%(owner)s::varchar IS NULL OR owner = %(owner)s)
       AND (%(verdict)s::metrics.verdict IS NULL OR v.verdict = %(verdict)s::metrics.verdict)
       AND (NOT %(unknown)s OR v.endpoint_id IS NOT NULL AND v.verdict IS NULL)
       AND (%(word)s::text IS NULL OR search_fold LIKE %(word)s)
       AND (%(words)s::text[] IS NULL OR search_fold LIKE ALL (%(words)s))
       AND (%(tag)s::text IS NULL
            OR id = ANY (ARRAY(SELECT server_id
                                 FROM registry.server_metadata
                                WHERE tags_fold @> ARRAY[%(tag)s::text])))
"""

# The same, narrowed and searched. Planned anew each time: the filters are optional, so that a plan for every choice of
# them fits none (2.1 against 0.5 ms for a rare status, 2026-11-22), and what is not asked for is not planned at all.
# What a search finds, who has a verdict and what a team owns is counted up to 1,000, MAX_COUNTED, because counting all
# of a common word took 7 to 23 times what the page takes (2026-11-30); the first page is what was counted first. Of
# several words the longest is for the index; the others are looked for in what that finds.
_NARROW: LiteralString = f"""
WITH matches AS MATERIALIZED (
    SELECT id
      FROM registry.mcp_servers AS s
      LEFT JOIN registry.endpoint_verdicts AS v ON v.endpoint_id = s.endpoint_id
     WHERE {_MATCHES}
     ORDER BY id
     LIMIT 1001
), page AS (
    SELECT id
      FROM (SELECT id FROM matches ORDER BY id LIMIT %(limit)s + 1) AS first_page
     WHERE %(after)s = 0 AND %(counted)s
     UNION ALL
    SELECT id
      FROM (SELECT id
              FROM registry.mcp_servers AS s
              LEFT JOIN registry.endpoint_verdicts AS v ON v.endpoint_id = s.endpoint_id
             WHERE {_MATCHES}
               AND id > %(after)s
             ORDER BY id
             LIMIT %(limit)s + 1) AS following
     WHERE %(after)s > 0 OR NOT %(counted)s
), shown AS (
    SELECT s.id, {_ITEM} AS json
      FROM (SELECT id FROM page ORDER BY id LIMIT %(limit)s) AS page
      JOIN registry.mcp_servers AS s ON s.id = page.id
      LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = s.endpoint_id
     ORDER BY page.id
)
SELECT (SELECT '[' || COALESCE(string_agg(json, ','), '') || ']' FROM shown),
       CASE WHEN NOT %(counted)s
            THEN (SELECT COALESCE(sum(servers), 0)::bigint
                    FROM registry.server_counts
                   WHERE (%(status)s::registry.server_status IS NULL OR status = %(status)s::registry.server_status)
                     AND (%(type)s::registry.server_type IS NULL OR server_type = %(type)s::registry.server_type))
            ELSE (SELECT count(*) FROM matches) END,
       CASE WHEN (SELECT count(*) FROM page) > %(limit)s THEN (SELECT max(id) FROM shown) END
"""  # noqa: S608 - of literals
NARROW: LiteralString = " ".join(_NARROW.split())

# Exactly this name: what reads like it may be meant, and may not.
IDENTIFY = """
SELECT id
  FROM registry.mcp_servers
 WHERE name_key = registry.name_key(%(name)s)
   AND name = %(name)s
"""

# JSON without blanks, like every answer. json_agg and jsonb would put some in; what stands in a column of type json is
# as it was received. The tools are joined as text: to make one value of them would read every schema once more. So is
# what a server says of itself (`introduction`): to look into it would fail on what Postgres cannot make a text of, such
# as \u0000, which json holds.
#
# The endpoint to use comes first, and what is not checked any more last. Of those that are no use the evidence is told.
#
# What an introduction found has its place in the ledger beside it, and has one where none ever succeeded: a server may
# be gated from the first day. Where offers are held back, the tools are not those of the registration, and are read
# apart (`offers.handed_out`).
DETAIL: LiteralString = """
WITH tool AS (
    SELECT t.position, t.id, t.extra,
           row_to_json((SELECT shown
                          FROM (SELECT t.id, t.name, t.title, t.description, t.input_schema, t.output_schema,
                                       t.annotations, t.category,
                                       registry.rfc3339(t.created_at) AS created_at) AS shown))::text AS json
      FROM registry.tools AS t
     WHERE t.server_id = %(id)s
), endpoint AS (
    SELECT e.*, e.id = s.endpoint_id AS used, h.verdict, h.checked_at, metrics.is_up(h.verdict) AS up,
           CASE WHEN h.endpoint_id IS NOT NULL
                THEN (SELECT row_to_json(seen)
                        FROM (SELECT h.verdict, h.status_code, h.response_time_ms, h.error_message,
                                     registry.rfc3339(h.checked_at) AS checked_at,
                                     registry.rfc3339(h.since) AS since, h.times) AS seen) END AS last_check
      FROM registry.mcp_servers AS s
      JOIN registry.endpoints AS e ON e.server_id = s.id
      LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
     WHERE s.id = %(id)s
), told AS (
    SELECT url, health_url, declared,
           CASE WHEN up THEN 'active' WHEN NOT up THEN 'error' ELSE 'unknown' END AS status,
           COALESCE(verdict::text, 'unknown') AS verdict, registry.rfc3339(announced_at) AS announced_at,
           registry.rfc3339(lease_until) AS lease_until, registry.rfc3339(retired_at) AS retired_at,
           registry.rfc3339(conflict_at) AS conflict_at, last_check,
           CASE WHEN NOT up
                THEN (SELECT c.evidence FROM metrics.endpoint_changes AS c
                       WHERE c.endpoint_id = endpoint.id AND c.change = 'verdict'
                       ORDER BY c.occurred_at DESC, c.id DESC LIMIT 1) END AS evidence
      FROM (SELECT * FROM endpoint
             WHERE retired_at IS NULL OR retired_at > now() - interval '1 day'
             ORDER BY used DESC, retired_at DESC NULLS FIRST, up DESC NULLS LAST, created_at DESC, id DESC
             LIMIT 100) AS endpoint
), metadata AS (
    SELECT m.author, m.repository_url, m.documentation_url,
           CASE WHEN m.tags IS NOT NULL
                THEN (SELECT '[' || COALESCE(string_agg(to_json(tag)::text, ','), '') || ']'
                        FROM jsonb_array_elements_text(m.tags) AS tag)::json END AS tags
      FROM registry.server_metadata AS m
     WHERE m.server_id = %(id)s
)
SELECT left(row_to_json(server)::text, -1) || ',"observed":'
       || COALESCE((SELECT concat('{"at":', COALESCE('"' || registry.rfc3339(introduced_at) || '"', 'null'),
                                  ',"era":', COALESCE(to_json(era)::text, 'null'),
                                  ',"state":', COALESCE('"' || l.state || '"', 'null'),
                                  ',"reason":', COALESCE(to_json(l.reason)::text, 'null'),
                                  ',"snapshot":', COALESCE('"' || encode(o.digest, 'hex') || '"', 'null'),
                                  ',"agreement":"', CASE WHEN l.agrees THEN 'equal' WHEN NOT l.agrees THEN 'differs'
                                                         ELSE 'unobserved' END,
                                  CASE WHEN introduction::text LIKE '{"%%'
                                       THEN '",' || substr(introduction::text, 2) ELSE '"}' END)
                      FROM endpoint
                      LEFT JOIN registry.snapshots AS o ON o.id = l.observed_id
                     WHERE used AND (l.state IS NOT NULL OR introduction::text LIKE '{"%%')), 'null'),
       CASE COALESCE(l.policy, %(policy)s)
       WHEN 'auto' THEN (SELECT COALESCE(string_agg(CASE WHEN extra IS NULL THEN json
                                                         ELSE left(json, -1) || ',' || substr(extra::text, 2) END, ','
                                                    ORDER BY position, id), '')
                           FROM tool) END,
       COALESCE(l.policy, %(policy)s), encode(n.prompt, 'hex')
  FROM (SELECT s.id, s.name, s.display_name, s.description, s.owner, s.server_type, s.endpoint_url, s.health_url,
               s.status, COALESCE(h.verdict::text, 'unknown') AS verdict,
               s.status = 'active' AND NOT COALESCE(h.up, true) AS frozen,
               s.version, registry.rfc3339(h.checked_at) AS last_health_check,
               registry.rfc3339(s.created_at) AS created_at, registry.rfc3339(s.updated_at) AS updated_at,
               registry.rfc3339(newest.checked_at) AS checked_at,
               registry.rfc3339(newest.announced_at) AS announced_at, h.last_check, h.auth,
               ARRAY(SELECT told FROM told) AS endpoints,
               (SELECT row_to_json(metadata) FROM metadata) AS metadata
          FROM registry.mcp_servers AS s
          LEFT JOIN endpoint AS h ON h.used
         CROSS JOIN (SELECT max(checked_at) AS checked_at, max(announced_at) AS announced_at FROM endpoint) AS newest
         WHERE s.id = %(id)s) AS server
  LEFT JOIN registry.ledger AS l ON l.server_id = server.id
  LEFT JOIN registry.snapshots AS n ON n.id = {served}
""".replace("{served}", offers.SERVED)

# A server in error is in the sweeps already; only a probe may say that it is well again. The row is locked first, so
# that `before` is its newest version even where it had to wait for another session's change. What was found before it
# was taken out says nothing of it now. A curator may change any server's.
SET_STATUS: LiteralString = f"""
WITH before AS (
    SELECT id, endpoint_id, status, CASE WHEN status = 'error' AND %(status)s = 'active' THEN status
                                         ELSE %(status)s::registry.server_status END AS wanted
      FROM registry.mcp_servers
     WHERE id = %(id)s
       AND ({_IS_THEIRS} OR %(caller_role)s = 'curator')
       FOR NO KEY UPDATE
), changed AS (
    UPDATE registry.mcp_servers AS s
       SET status = before.wanted,
           updated_at = CASE WHEN before.status = before.wanted THEN s.updated_at ELSE now() END
      FROM before
     WHERE s.id = before.id
    RETURNING s.id, s.name, s.status, s.created_at, s.updated_at
), transitions AS (
    INSERT INTO metrics.status_transitions (server_id, from_status, to_status, reason, occurred_at)
    SELECT id, status, wanted,
           CASE wanted WHEN 'inactive' THEN 'An operator took the server out of service'
                       ELSE 'An operator put the server back into service' END, now()
      FROM before
     WHERE status <> wanted
), looked_for AS (
    UPDATE registry.endpoints AS e
       SET visited_at = CASE WHEN e.id = before.endpoint_id AND {_MAY_BE_VISITED} THEN statement_timestamp()
                             ELSE e.visited_at END,
           introduce_at = CASE WHEN e.id = before.endpoint_id AND {_MAY_BE_VISITED} THEN now() + interval '30 seconds'
                               ELSE now() END,
           moved_at = CASE before.status WHEN 'inactive' THEN now() ELSE e.moved_at END
      FROM before
     WHERE e.server_id = before.id
       AND e.retired_at IS NULL
       AND %(status)s = 'active'
       AND before.status <> 'active'
    RETURNING e.id, e.url, e.health_url, e.era, {_IS_VISITED} AS is_visited
), forgotten AS (
    DELETE FROM registry.endpoint_health AS h
     USING looked_for
     CROSS JOIN before
     WHERE h.endpoint_id = looked_for.id
       AND before.status = 'inactive'
), audit AS ({_AUDIT}
           'server.status', 'server:' || changed.name, jsonb_build_object('status', before.status),
           jsonb_build_object('status', before.wanted)
      FROM changed
      JOIN before ON before.id = changed.id
     WHERE before.status <> before.wanted
)
SELECT changed.id, name, changed.status::text, registry.rfc3339(created_at), registry.rfc3339(updated_at),
       now(), e.id, e.url, e.health_url, e.era, CASE before.status WHEN 'error' THEN h.verdict::text END
  FROM changed
  JOIN before ON before.id = changed.id
  LEFT JOIN looked_for AS e ON e.is_visited
  LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
"""  # noqa: S608 - of literals

# Whether a server `s` is one that curators look after: it has a policy of its own, or they decided about it. Else its
# team would end that by removing it, and register it anew.
_IS_REVIEWED: LiteralString = """
       (EXISTS (SELECT FROM registry.ledger AS l WHERE l.server_id = s.id AND l.policy IS NOT NULL)
        OR EXISTS (SELECT FROM registry.approvals AS a WHERE a.server_id = s.id))"""
_MAY_REMOVE: LiteralString = f"(%(caller_role)s IN ('curator', 'admin') OR NOT {_IS_REVIEWED})"
IS_REVIEWED: LiteralString = f"""
SELECT {_IS_REVIEWED}
  FROM registry.mcp_servers AS s
 WHERE id = %(id)s
"""  # noqa: S608 - of literals

# Its metadata, endpoints and last checks go by foreign keys, its tools and metrics by triggers.
DELETE: LiteralString = f"""
WITH removed AS (
    DELETE FROM registry.mcp_servers AS s
     WHERE id = %(id)s
       AND {_IS_THEIRS}
       AND {_MAY_REMOVE}
    RETURNING *
), audit AS ({_AUDIT}
           'server.removed', 'server:' || s.name, {_TOLD_WHOLE}, NULL
      FROM removed AS s
)
SELECT id
  FROM removed
"""  # noqa: S608 - of literals

# Likewise, and its name is not to be registered for a while: it is the team's that the server was of. Nothing is
# removed where that team has no room for one more. Those that do so at the same moment do not see each other.
REMOVE_AND_HOLD: LiteralString = f"""
WITH found AS MATERIALIZED (
    SELECT id, (SELECT count(*)
                  FROM registry.held_names AS held
                 WHERE held.owner = s.owner
                   AND held_until > now()) < %(max_held)s AS has_room
      FROM registry.mcp_servers AS s
     WHERE id = %(id)s
       AND {_IS_THEIRS}
       AND {_MAY_REMOVE}
), removed AS MATERIALIZED (
    SELECT gone.*
      FROM found
     CROSS JOIN LATERAL registry.remove_and_hold(found.id, %(seconds)s,
                                                 CASE WHEN NOT %(caller_rules)s THEN %(caller_team)s END) AS gone
     WHERE found.has_room
), audit AS ({_AUDIT}
           entry.action, entry.target, entry.before, entry.after
      FROM removed AS s
     CROSS JOIN LATERAL (VALUES (1, 'server.removed', 'server:' || s.name, {_TOLD_WHOLE}, NULL),
                                (2, 'name.held', 'name:' || s.name, NULL,
                                 jsonb_build_object('owner', s.owner, 'seconds', %(seconds)s::integer)))
                     AS entry (place, action, target, before, after)
     ORDER BY entry.place
)
SELECT removed.id
  FROM found
  LEFT JOIN removed ON true
 WHERE removed.id IS NOT NULL
    OR NOT found.has_room
"""  # noqa: S608 - of literals

# The revision counts, so that a registration that is under way reads again whose the server is. Nothing is changed
# where there is no such team.
TRANSFER: LiteralString = f"""
WITH before AS (
    SELECT s.id, s.name, s.owner, team.name AS wanted
      FROM registry.mcp_servers AS s
      LEFT JOIN registry.teams AS team ON team.name = %(team)s
     WHERE s.id = %(id)s
       AND {_IS_THEIRS}
       FOR NO KEY UPDATE OF s
), changed AS (
    UPDATE registry.mcp_servers AS s
       SET owner = before.wanted,
           revision = revision + 1,
           updated_at = now()
      FROM before
     WHERE s.id = before.id
       AND before.owner <> before.wanted
), audit AS ({_AUDIT}
           'server.transferred', 'server:' || name, jsonb_build_object('owner', owner),
           jsonb_build_object('owner', wanted)
      FROM before
     WHERE owner <> wanted
)
SELECT id, name, wanted
  FROM before
"""  # noqa: S608 - of literals


class Quota(NamedTuple):
    """How many servers the registry may hold, and how many bytes of tools and descriptions (None: any number).

    One set of credentials registers everything, so that what it may store is what the registry may hold. Requests that
    are written at the same moment do not see each other: a few more may come in.
    """

    servers: int | None = None
    megabytes: int | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Quota:
        """What MAX_SERVERS and MAX_MEGABYTES say, where they are set. Raises ValueError where one is no number."""
        given = (environment.get(name) for name in ("MAX_SERVERS", "MAX_MEGABYTES"))
        return cls(*(int(number) if number else None for number in given))

    def parameters(self) -> dict[str, int]:
        """The bounds of the statements."""
        servers, megabytes = (MAX_ID if bound is None else bound for bound in self)
        return {"max_servers": servers, "max_bytes": min(megabytes * MEGABYTE, MAX_ID)}


NO_QUOTA = Quota()


class Page(NamedTuple):
    """One page of a list: JSON array of its servers, how many match in all, and where the next one starts.

    Where more than MAX_COUNTED match, `total` is MAX_COUNTED and not `exact`.
    """

    servers: str
    total: int
    exact: bool
    next_cursor: str | None


class Registered(dict[str, Any]):
    """What a registration is answered. `visit`: the endpoint that is to be looked at now, or None."""

    def __init__(self, answer: Mapping[str, Any], visit: Visit | None = None) -> None:
        super().__init__(answer)
        self.visit = visit


class _Found(NamedTuple):
    """What FIND finds: a server, and of its endpoints the one that a registration names, where there is one."""

    id: int
    name: str
    status: str
    created_at: str
    revision: int
    body_digest: bytes
    offer_digest: bytes | None
    bytes: int
    endpoint: int | None
    health_url: str | None
    is_declared: bool | None
    is_retired: bool
    is_disputed: bool
    endpoint_body: bytes | None
    endpoint_offer: bytes | None
    era: str | None
    verdict: str | None
    is_used: bool | None
    is_looked_for: bool
    is_lease_over: bool
    has_others: bool
    live_others: int
    rival: str | None
    is_rival_declared: bool | None
    rival_came_first: bool | None
    owner: str

    def offers(self, registration: Registration) -> bool:
        """Whether the server is registered as this already, wherever it answers."""
        if self.offer_digest is None:  # written by the release before
            return self.body_digest == registration.body_digest
        return self.offer_digest == registration.offer_digest

    def is_set(self, registration: Registration) -> bool:
        """Whether the server has the address of this registration, set by hand, and no other."""
        return bool(self.is_used and self.is_declared) and not self.has_others and not self.is_changed(registration)

    def is_changed(self, registration: Registration) -> bool:
        """Whether the endpoint is new here, has retired, or has another health URL than the one that is named."""
        return self.endpoint is None or self.is_retired or self.health_url != registration.document.health_url


def register(database: Database, caller: Caller, registration: Registration, quota: Quota = NO_QUOTA) -> Registered:
    """Add a server with its metadata, tools and endpoint, all or nothing; answers id, name, status and created_at.

    It belongs to the team in whose prefix its name is, and else to the caller's. Raises DuplicateServer where a server
    with this name, or one that reads the same, exists; HeldName where its name is held; Forbidden where the server, the
    held name or the prefix is another team's, or the caller's team does not exist; QuotaExceeded where there is no room
    for one more; ValidationFailed where only a server that exists may have this name; Unavailable where others kept
    taking and leaving it.
    """
    registration.check_new()
    for _ in range(MAX_RACES):
        if created := _create(database, caller, registration, quota, None):
            return created
        row = database.read(FIND, _named(registration))
        if row is not None:  # else it is gone again
            found = _Found(*row)
            check_owner(database, caller, found.name, found.owner)
            raise _duplicate(registration, found.name)
        _check_room(database, caller, registration, quota, registration.size, servers=1)
    raise Unavailable("lost every race")


def replace(
    database: Database,
    caller: Caller,
    registration: Registration,
    quota: Quota = NO_QUOTA,
    lease: int | None = None,
) -> Registered:
    """Make the catalogue agree with a registration; answers what `register` does, and what came of it.

    Without a lease the registration sets the address of its server: the server has no other afterwards. With one it is
    an announcement: the endpoint is one of the server's for so many seconds, whatever others there are.

    `result` is created, updated or unchanged. The same content writes nothing, however it is spelled, but for the
    lease. An operator's `inactive` stays. A server that exists is always replaced by what is no larger, however full
    the registry is. Raises what `register` raises, DuplicateServer where the name exists in another spelling; and
    ConflictingServer where what is announced is another server than the one that answers under this name.
    """
    for _ in range(MAX_RACES):
        row = database.read(FIND, _named(registration))
        if row is None:
            registration.check_new()
            if created := _create(database, caller, registration, quota, lease):
                return Registered({**created, "result": "created"}, created.visit)
            _check_room(database, caller, registration, quota, registration.size, servers=1)
            continue  # somebody else was first: look again
        found = _Found(*row)
        check_owner(database, caller, found.name, found.owner)
        if found.name != registration.document.name:
            raise _duplicate(registration, found.name)
        if found.offers(registration) and lease is not None:
            answer = _announce(database, caller, registration, found, lease)
        elif found.offers(registration) and found.is_set(registration):
            return _outcome(found, "unchanged")
        else:
            answer = _replace(database, caller, registration, found, lease, quota)
        if answer is not None:
            return answer
        if registration.size > found.bytes:
            _check_room(database, caller, registration, quota, registration.size - found.bytes)
    raise Unavailable("lost every race")


def check_owner(database: Database, caller: Caller, name: str, owner: str) -> None:
    """Raise Forbidden, with whom to ask, where a server or name of this owner is not the caller's to change."""
    if caller.rules or owner == caller.team:
        return
    row = database.read(CONTACT, {"team": owner})
    contact = (row and row[0]) or "its administrator"
    raise Forbidden(
        f"{name} belongs to the team {owner}: ask {contact}", [Fault("name", f"Owned by the team {owner}", "owner")]
    )


def _create(
    database: Database, caller: Caller, registration: Registration, quota: Quota, lease: int | None
) -> Registered | None:
    """Add a server; None where that may not be, or its name is taken."""
    given = _columns(registration) | quota.parameters() | caller.parameters() | {"lease": lease}
    row = database.write(REGISTER, given)
    if row is None:
        return None
    document = registration.document
    visit = (row[5], row[0], row[4], document.endpoint_url, document.health_url, None, None)
    return Registered(_answer(*row[:4]), visit)


def _replace(
    database: Database, caller: Caller, registration: Registration, found: _Found, lease: int | None, quota: Quota
) -> Registered | None:
    """Replace what is stored of a server; None where that may not be, or it is not as it was found any more."""
    is_contested = lease is not None and found.rival is not None
    # Two servers that each say to be this one, by turns, while both answer. A new release is announced once by each.
    is_again = not found.is_retired and found.endpoint_offer == registration.offer_digest
    is_put_back = is_contested and is_again
    if is_contested and not found.is_declared and _is_another(database, registration, found, is_again=is_again):
        if database.write(DISPUTE, caller.parameters() | {"endpoint": found.endpoint}):
            database.write(USE_ENDPOINT, {"id": found.id})
        raise ConflictingServer(
            f"{ConflictingServer.__doc__}, at {found.rival}: give this one another name, run the same release"
            " everywhere, or register the new release without a lease",
            [Fault("name", f"Taken for the server at {found.rival}", "conflict")],
        )
    place = _place(registration, found, lease, is_put_back=is_put_back)
    row = database.write(REPLACE, _columns(registration) | quota.parameters() | caller.parameters() | place)
    return None if row is None else _outcome(found, "updated", _visit(registration, found, *row))


def _is_another(database: Database, registration: Registration, found: _Found, *, is_again: bool) -> bool:
    """Whether what announces another offer than a rival is another server than that, and no new release of it.

    What was registered by hand is changed from its own address, or by hand. Who was first keeps the name. And who is
    new here has no tool of a server that answers: a new release would have kept some.
    """
    if found.is_rival_declared:
        return True
    if found.endpoint is not None and not found.is_retired:
        return is_again and bool(found.rival_came_first)
    names = _array(tool.name for tool in registration.document.tools)
    row = database.read(MAY_BE_RELEASE, {"id": found.id, "names": names})
    return row is not None and not row[0]


def _announce(
    database: Database, caller: Caller, registration: Registration, found: _Found, lease: int
) -> Registered | None:
    """Add an endpoint to a server that is registered as this, or renew it; None where it is not as it was found."""
    is_another = found.is_changed(registration) or found.is_disputed
    if is_another or found.endpoint_offer != registration.offer_digest:
        statement = ADD_ENDPOINT
    elif found.is_looked_for or found.is_lease_over or found.endpoint_body != registration.body_digest:
        statement = RENEW
    else:
        return _outcome(found, "unchanged")
    row = database.write(statement, caller.parameters() | _place(registration, found, lease))
    result = "updated" if is_another else "unchanged"
    return None if row is None else _outcome(found, result, _visit(registration, found, *row))


def _place(
    registration: Registration, found: _Found, lease: int | None, *, is_put_back: bool = False
) -> dict[str, Any]:
    """What the statements are told of the endpoint, and of the server that it is to be one of. Raises QuotaExceeded."""
    is_changed = found.is_changed(registration)
    is_one_more = lease is not None and (found.endpoint is None or found.is_retired)
    if is_one_more and found.live_others >= MAX_ENDPOINTS:
        raise QuotaExceeded(
            f"The server has {found.live_others} endpoints, as many as it may: set its address by a registration"
            " without a lease, or wait until the leases of some are over"
        )
    document = registration.document
    return {
        "id": found.id,
        "revision": found.revision,
        "endpoint": found.endpoint,
        "endpoint_url": document.endpoint_url,
        "health_url": document.health_url,
        "body_digest": registration.body_digest,
        "offer_digest": registration.offer_digest,
        "lease": lease,
        "is_moved": is_changed and found.endpoint is not None,
        "is_back": found.is_retired,
        # Who offers something else is looked at, so that what it answers is known as soon as what it says.
        "is_looked_for": (is_changed or found.is_looked_for or found.endpoint_offer != registration.offer_digest)
        and found.status != "inactive",
        "is_put_back": is_put_back,
        "is_one_more": is_one_more,
    }


def _visit(registration: Registration, found: _Found, endpoint: int, at: datetime, is_visited: bool) -> Visit | None:
    """The endpoint as it is to be looked at, where it is."""
    if found.status == "inactive" or not is_visited:
        return None
    document = registration.document
    verdict = None if found.is_retired else found.verdict
    return at, found.id, endpoint, document.endpoint_url, document.health_url, found.era, verdict


def _outcome(found: _Found, result: str, visit: Visit | None = None) -> Registered:
    """The answer to a registration of a server that was there."""
    return Registered({**_answer(found.id, found.name, found.status, found.created_at), "result": result}, visit)


def _check_room(
    database: Database, caller: Caller, registration: Registration, quota: Quota, more: int, servers: int = 0
) -> None:
    """Raise QuotaExceeded where there is no room for so many bytes and servers more.

    Of a new server also Forbidden, where its name is not the caller's to take, and HeldName where it is held.
    """
    row = database.read(HELD, _named(registration) | caller.parameters())
    assert row is not None
    held, held_bytes, prefix_team, has_team, held_name, held_by, held_for = row
    if servers:
        if not has_team:
            raise Forbidden(f"The team {caller.team} of this credential does not exist any more: ask an administrator")
        check_owner(database, caller, registration.document.name, prefix_team or caller.team)
        if held_name is not None:
            check_owner(database, caller, held_name, held_by)
            raise HeldName(held_for)
    bounds = quota.parameters()
    if held + servers > bounds["max_servers"]:
        raise QuotaExceeded(
            f"The registry holds {held} servers, as many as it may: remove some that are not needed, or have its"
            " operator raise MaxServers"
        )
    if held_bytes + more > bounds["max_bytes"]:
        raise QuotaExceeded(
            f"The registry may hold {quota.megabytes} MiB of tools and descriptions, and this does not fit in any more:"
            " shorten it, remove servers that are not needed, or have its operator raise MaxMegabytes"
        )


def _duplicate(registration: Registration, existing: str) -> DuplicateServer:
    """The refusal of a name, with the name of the server that it is taken for."""
    told = (DuplicateServer.__doc__ or "") + ("" if existing == registration.document.name else f", spelled {existing}")
    return DuplicateServer(told, [Fault("name", f"Taken for the server {existing}", "taken")])


def shake_hands(database: Database, caller: Caller, digest: bytes, lease: int | None = None) -> Visit | None:
    """Be content with the SHA-256 (RFC 8785 form) of a registration, with a lease or without; the endpoint to look at.

    Raises RegistrationRequired where no server of the caller's was sent as this, or more is to be done than to renew
    the lease.
    """
    given = caller.parameters() | {"body_digest": digest}
    if lease is None:
        row = database.read(HAS_DIGEST, given)
        if row is None or not row[0]:
            raise RegistrationRequired
        return None
    row = database.read(ANNOUNCED, given)
    if row is None:
        raise RegistrationRequired
    *visit, offer, status, is_looked_for, is_lease_over = row
    is_looked_for = is_looked_for and status != "inactive"
    if not (is_looked_for or is_lease_over):
        return None
    place = {"endpoint": row[1], "lease": lease, "is_looked_for": is_looked_for, "offer_digest": offer}
    renewed = database.write(RENEW, given | place)
    if renewed is None:
        raise RegistrationRequired
    _, at, is_visited = renewed
    return (at, *visit) if is_visited else None


def list_page(database: Database, filters: Filters, limit: int, after: int) -> Page:
    """The page of at most `limit` servers whose ids follow `after`, oldest registration first."""
    parameters: dict[str, Any] = {"after": after, "limit": limit, "policy": offers.policy()}
    counted = False
    if filters == Filters():
        row = database.read(LIST, parameters)
    else:
        # The longest word is the rarest, as far as one can tell without asking.
        words = sorted(filter(None, map(folding.fold, (filters.search or "").split())), key=len, reverse=True)
        word, *others = [folding.pattern(word) for word in words] or [None]
        tag = None if filters.tag is None else folding.fold(filters.tag)
        unknown = filters.verdict == UNKNOWN
        counted = not (word is None and tag is None and filters.verdict is None and filters.owner is None)
        parameters |= {
            "status": filters.status,
            "type": filters.type,
            "owner": filters.owner,
            "verdict": None if unknown else filters.verdict,
            "unknown": unknown,
            "word": word,
            "words": others or None,
            "tag": tag,
            "counted": counted,
        }
        row = database.read(NARROW, parameters, plan_anew=True)
    assert row is not None
    servers, total, last = row
    exact = not counted or total <= MAX_COUNTED
    next_cursor = None if last is None else cursor.encode(last, filters)
    return Page(servers, total if exact else MAX_COUNTED, exact, next_cursor)


def identify(database: Database, id_or_name: int | str) -> int:
    """The id of a server that is named by its id or its name. Whether there is one of this id is not looked up.

    Raises ServerNotFound where there is none of this name.
    """
    if isinstance(id_or_name, int):
        return id_or_name
    row = database.read(IDENTIFY, {"name": id_or_name})
    if row is None:
        raise ServerNotFound
    return row[0]


def detail(database: Database, id_: int) -> str:
    """One server with its metadata and the tools that are handed out, as JSON text. Raises ServerNotFound."""
    row = database.read(DETAIL, {"id": id_, "policy": offers.policy()})
    if row is None:
        raise ServerNotFound
    server, tools, policy, digest = row
    out = offers.HandedOut("approved", tools, 0) if tools is not None else offers.handed_out(database, id_, policy)
    if out is None:
        raise ServerNotFound
    review = {"policy": policy, "state": out.state, "digest": digest, "left_out": out.left_out}
    return f'{server},"review":{json.dumps(review, separators=(",", ":"))},"tools":[{out.tools}]}}'


def set_status(database: Database, caller: Caller, id_: int, status: Literal["active", "inactive"]) -> Registered:
    """Put a server into the health sweeps, or take it out; answers its id, name, status, created_at and updated_at.

    Raises ServerNotFound, and Forbidden where it is another team's and the caller no curator.
    """
    row = _write(database, caller, SET_STATUS, {"id": id_, "status": status}, WHOSE)
    visit = None if row[6] is None else (row[5], row[0], *row[6:])
    return Registered({**_answer(*row[:4]), "updated_at": row[4]}, visit)


def transfer(database: Database, caller: Caller, id_: int, team: str) -> dict[str, Any]:
    """Give a server to a team; answers its id, name and owner.

    Raises ServerNotFound, TeamNotFound, and Forbidden where it is another team's.
    """
    row = _write(database, caller, TRANSFER, {"id": id_, "team": team}, WHOSE)
    if row[2] is None:
        raise TeamNotFound
    return dict(zip(("id", "name", "owner"), row, strict=True))


def parse_hold(query: Mapping[str, str]) -> int | None:
    """For how many seconds a query wants a name held; None where it does not say, 0 where it wants a hold to end.

    Raises ValidationFailed.
    """
    if faults := [Fault(name, "There is no such parameter", "unknown") for name in query if name != "hold"]:
        raise ValidationFailed(faults=faults)
    hold = query.get("hold")
    if hold is None:
        return None
    if hold == "0":
        return 0
    if not (hold.isascii() and hold.isdigit() and len(hold) < 7 and MIN_HOLD <= int(hold) <= MAX_HOLD):
        told = f"A number of seconds from {MIN_HOLD} to {MAX_HOLD}, or 0"
        raise ValidationFailed(faults=[Fault("hold", told, "value")])
    return int(hold)


def delete(database: Database, caller: Caller, id_: int, hold: int | None = None) -> None:
    """Remove a server with all that is kept of it, and hold its name for so many seconds.

    Raises ServerNotFound, Forbidden where it is another team's, or curators look after it and this is none, and
    QuotaExceeded where as many names are held for that team as may be.
    """
    if not caller.may("curator"):
        check_theirs(database, caller, id_)
        if (database.read(IS_REVIEWED, {"id": id_}) or (False,))[0]:
            raise Forbidden(
                "This server is under review, which would end with it: ask a curator to remove it, or take it out of"
                " service"
            )
    if hold is None:
        _write(database, caller, DELETE, {"id": id_}, WHOSE)
        return
    given = {"id": id_, "seconds": hold, "max_held": MAX_HELD}
    if _write(database, caller, REMOVE_AND_HOLD, given, WHOSE)[0] is None:
        raise QuotaExceeded(
            f"{MAX_HELD} names are held for the team of this server, as many as may be: end a hold that is not needed"
            " (hold=0), or remove the server without one"
        )


def end_hold(database: Database, caller: Caller, name: int | str) -> None:
    """Let a name be registered again that is held.

    Raises ServerNotFound where it is not held, which an id never is, and Forbidden where another team holds it.
    """
    if isinstance(name, int):
        raise ServerNotFound
    _write(database, caller, END_HOLD, {"name": name}, WHOSE_HOLD)


def _write(
    database: Database, caller: Caller, statement: LiteralString, given: dict[str, Any], whose: LiteralString
) -> tuple[Any, ...]:
    """The row of a statement that changes what is the caller's, of which `whose` tells the name and the owner.

    Raises ServerNotFound where it is not there, Forbidden where it is not the caller's.
    """
    for _ in range(MAX_RACES):
        row = database.write(statement, caller.parameters() | given)
        if row is not None:
            return row
        found = database.read(whose, given)
        if found is None:
            raise ServerNotFound
        check_owner(database, caller, *found)  # else it has come to be the caller's meanwhile
    raise Unavailable("lost every race")


def check_theirs(database: Database, caller: Caller, id_: int) -> None:
    """Raise ServerNotFound where there is no server of this id, Forbidden where it is not the caller's to change."""
    found = database.read(WHOSE, {"id": id_})
    if found is None:
        raise ServerNotFound
    check_owner(database, caller, *found)


def _answer(id_: int, name: str, status: str, created_at: str) -> dict[str, Any]:
    return {"id": id_, "name": name, "status": status, "created_at": created_at}


def _named(registration: Registration) -> dict[str, Any]:
    read, look, figure = registration.name_keys
    return {
        "name": registration.document.name,
        "name_key": read,
        "look_key": look,
        "figure_key": figure,
        "endpoint_url": registration.document.endpoint_url,
    }


def _columns(registration: Registration) -> dict[str, Any]:
    document, metadata = registration.document, registration.document.metadata
    return {
        **_named(registration),
        "search_fold": folding.fold(f"{document.name}\x1f{document.display_name}"),
        "display_name": document.display_name,
        "description": document.description,
        "server_type": document.server_type,
        "health_url": document.health_url,
        "version": document.version,
        "has_metadata": metadata is not None,
        "author": metadata and metadata.author,
        "repository_url": metadata and metadata.repository_url,
        "documentation_url": metadata and metadata.documentation_url,
        "tags": registration.tags_json,
        "tags_fold": metadata and metadata.tags and _array(folding.fold(tag.strip()) for tag in metadata.tags),
        "tools": registration.tools_json,
        "tools_count": len(document.tools),
        "bytes": registration.size,
        "body_digest": registration.body_digest,
        "offer_digest": registration.offer_digest,
    }


def _array(texts: Iterable[str]) -> str:
    """A text[] as Postgres writes it. psycopg takes 40 us of a registration to make one of a list (2026-11-30)."""
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"
