"""The catalogue: register, replace, list, read, change and delete servers.

Statements stand beside the function that runs them. Each is one round trip and atomic by itself, so that no client
can leave half of a registration behind. What goes out is rendered as JSON by Postgres.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, LiteralString, NamedTuple

from mcp_registry.aws.db import Database
from mcp_registry.catalogue import cursor, folding
from mcp_registry.catalogue.cursor import Filters
from mcp_registry.errors import DuplicateServer, Fault, QuotaExceeded, ServerNotFound, Unavailable

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

# No row where there is no room (Quota), or where the name is one that exists, by whichever of the three keys.
# canonical_name is what the release before 0003 finds a server by, unless a server has it whose name differs by the
# keys; a trigger could say it, for 45 us more.
REGISTER = """
WITH server AS (
    INSERT INTO registry.mcp_servers
           (name, name_key, look_key, figure_key, canonical_name, display_name, search_fold, description, server_type,
            endpoint_url, health_url, version, tools_count, bytes, body_digest, content_digest)
    SELECT %(name)s, %(name_key)s, %(look_key)s, %(figure_key)s, CASE WHEN taken.id IS NULL THEN before.name END,
           %(display_name)s, %(search_fold)s, %(description)s, %(server_type)s::registry.server_type,
           %(endpoint_url)s, %(health_url)s, %(version)s, %(tools_count)s, %(bytes)s, %(body_digest)s,
           %(content_digest)s
      FROM (SELECT translate(%(look_key)s, 'i-', 'l')) AS before (name)
      LEFT JOIN registry.mcp_servers AS taken ON taken.canonical_name = before.name
     WHERE (SELECT sum(servers) < %(max_servers)s AND sum(bytes) + %(bytes)s <= %(max_bytes)s
              FROM registry.server_counts)
        ON CONFLICT DO NOTHING
    RETURNING id, name, status, created_at
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
     ORDER BY tool.position
)
SELECT id, name, status::text, registry.rfc3339(created_at)
  FROM server
"""

# The server that a name is taken for. Of two, because a name may be one with each of them, the one that is spelled so.
FIND = """
SELECT id, name, status::text, registry.rfc3339(created_at), revision, body_digest, content_digest, bytes
  FROM registry.mcp_servers
 WHERE name_key = %(name_key)s
    OR look_key = %(look_key)s
    OR figure_key = %(figure_key)s
 ORDER BY name = %(name)s DESC, id
 LIMIT 1
"""

# Compare-and-set on the revision: where the row has moved on since it was read, the update finds nothing and so does
# everything that hangs on it. Without that, a replacement that waited for another would delete the tools that it
# saw and not the ones that the other has written meanwhile. Tools that stay keep their id, and with it their metrics.
REPLACE = """
WITH server AS (
    UPDATE registry.mcp_servers
       SET display_name = %(display_name)s,
           search_fold = %(search_fold)s,
           description = %(description)s,
           server_type = %(server_type)s::registry.server_type,
           endpoint_url = %(endpoint_url)s,
           health_url = %(health_url)s,
           version = %(version)s,
           tools_count = %(tools_count)s,
           bytes = %(bytes)s,
           body_digest = %(body_digest)s,
           content_digest = %(content_digest)s,
           moved_at = CASE WHEN endpoint_url = %(endpoint_url)s::varchar
                            AND health_url IS NOT DISTINCT FROM %(health_url)s::varchar THEN moved_at
                           ELSE now() END,
           revision = revision + 1,
           updated_at = now()
     WHERE id = %(id)s
       AND revision = %(revision)s
       AND (bytes >= %(bytes)s
            OR %(bytes)s - bytes + (SELECT sum(bytes) FROM registry.server_counts) <= %(max_bytes)s)
    RETURNING id
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
)
SELECT id
  FROM server
"""

# How much the registry holds.
HELD = """
SELECT sum(servers)::bigint, sum(bytes)::bigint
  FROM registry.server_counts
"""

HAS_DIGEST = """
SELECT EXISTS (SELECT FROM registry.mcp_servers WHERE body_digest = %(digest)s)
"""

# A server `s` of a page, with the last check `h` of its endpoint. Put together by hand, because row_to_json looks up
# the kind of each field in each row, which is a fifth of a page (2026-11-30). A status is frozen where the last check
# found nothing good and the server was not called down for it, because the fault may be ours.
_ITEM: LiteralString = """concat('{"id":', s.id, ',"name":', to_json(s.name),
                  ',"display_name":', to_json(s.display_name),
                  ',"server_type":"', s.server_type, '","status":"', s.status,
                  '","verdict":"', COALESCE(h.verdict::text, 'unknown'),
                  '","frozen":', CASE WHEN s.status = 'active' AND NOT metrics.is_up(h.verdict) THEN 'true'
                                      ELSE 'false' END,
                  ',"version":', COALESCE(to_json(s.version)::text, 'null'),
                  ',"last_health_check":', COALESCE('"' || registry.rfc3339(h.checked_at) || '"', 'null'),
                  ',"tools_count":', s.tools_count, '}')"""

# One page in id order, which is the order of registration; one row more than asked for says whether another follows.
# The inner LIMIT is a literal, MAX_LIMIT and that row, because a plan that is kept knows literals only: it would take
# %(limit)s for a tenth of the table.
LIST: LiteralString = f"""
WITH page AS (
    SELECT id, name, display_name, server_type, status, version, tools_count, endpoint_id
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

# Whether a server is one of those that are asked for. Nobody has been up or down where there was no check. A verdict
# has no index, because it is in another table than the order of the page: a rare one is looked for in all servers.
_MATCHES: LiteralString = """
           (%(status)s::registry.server_status IS NULL OR status = %(status)s::registry.server_status)
       AND (%(type)s::registry.server_type IS NULL OR server_type = %(type)s::registry.server_type)
       AND (%(verdict)s::metrics.verdict IS NULL OR h.verdict = %(verdict)s::metrics.verdict)
       AND (NOT %(unknown)s OR h.endpoint_id IS NULL)
       AND (%(word)s::text IS NULL OR search_fold LIKE %(word)s)
       AND (%(words)s::text[] IS NULL OR search_fold LIKE ALL (%(words)s))
       AND (%(tag)s::text IS NULL
            OR id = ANY (ARRAY(SELECT server_id
                                 FROM registry.server_metadata
                                WHERE tags_fold @> ARRAY[%(tag)s::text])))
"""

# The same, narrowed and searched. Planned anew each time: the filters are optional, so that a plan for every choice of
# them fits none (2.1 against 0.5 ms for a rare status, 2026-11-22), and what is not asked for is not planned at all.
# What a search finds, and who has a verdict, is counted up to 1,000, MAX_COUNTED, because counting all of a common word
# took 7 to 23 times what the page takes (2026-11-30); the first page is what was counted first. Of several words the
# longest is for the index; the others are looked for in what that finds.
NARROW: LiteralString = f"""
WITH matches AS MATERIALIZED (
    SELECT id
      FROM registry.mcp_servers AS s
      LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = s.endpoint_id
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
              LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = s.endpoint_id
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
# psycopg takes a statement of more than 4,096 characters apart for each request, which is 30 us (2026-11-30).
DETAIL = """
WITH tool AS (
    SELECT t.position, t.id, t.extra,
           row_to_json((SELECT shown
                          FROM (SELECT t.id, t.name, t.title, t.description, t.input_schema, t.output_schema,
                                       t.annotations, t.category,
                                       registry.rfc3339(t.created_at) AS created_at) AS shown))::text AS json
      FROM registry.tools AS t
     WHERE t.server_id = %(id)s
), endpoint AS MATERIALIZED (
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
                THEN (SELECT c.evidence
                        FROM metrics.endpoint_changes AS c
                       WHERE c.endpoint_id = endpoint.id AND c.change = 'verdict'
                       ORDER BY c.occurred_at DESC, c.id DESC
                       LIMIT 1) END AS evidence
      FROM endpoint
     WHERE retired_at IS NULL OR retired_at > now() - interval '1 day'
     ORDER BY used DESC, retired_at DESC NULLS FIRST, up DESC NULLS LAST, created_at DESC, id DESC
     LIMIT 100
), metadata AS (
    SELECT m.author, m.repository_url, m.documentation_url,
           CASE WHEN m.tags IS NOT NULL
                THEN (SELECT '[' || COALESCE(string_agg(to_json(tag)::text, ','), '') || ']'
                        FROM jsonb_array_elements_text(m.tags) AS tag)::json END AS tags
      FROM registry.server_metadata AS m
     WHERE m.server_id = %(id)s
)
SELECT left(row_to_json(server)::text, -1) || ',"observed":'
       || COALESCE((SELECT '{"at":"' || registry.rfc3339(introduced_at) || '","era":' || to_json(era) || ','
                           || substr(introduction::text, 2)
                      FROM endpoint
                     WHERE used AND introduction::text LIKE '{"%%'), 'null')
       || ',"tools":['
       || (SELECT COALESCE(string_agg(CASE WHEN extra IS NULL THEN json
                                           ELSE left(json, -1) || ',' || substr(extra::text, 2) END, ','
                                      ORDER BY position, id), '')
             FROM tool)
       || ']}'
  FROM (SELECT s.id, s.name, s.display_name, s.description, s.server_type, s.endpoint_url, s.health_url, s.status,
               COALESCE(h.verdict::text, 'unknown') AS verdict,
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
"""

# A server in error is in the sweeps already; only a probe may say that it is well again. The row is locked first, so
# that `before` is its newest version even where it had to wait for another session's change.
SET_STATUS = """
WITH before AS (
    SELECT id, status, CASE WHEN status = 'error' AND %(status)s = 'active' THEN status
                            ELSE %(status)s::registry.server_status END AS wanted
      FROM registry.mcp_servers
     WHERE id = %(id)s
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
)
SELECT changed.id, name, status::text, registry.rfc3339(created_at),
       registry.rfc3339(GREATEST(updated_at, h.checked_at))
  FROM changed
  LEFT JOIN registry.server_health AS h ON h.server_id = changed.id
"""

# Its metadata and last check go by foreign keys, its tools and metrics by triggers.
DELETE = """
DELETE FROM registry.mcp_servers
 WHERE id = %(id)s
RETURNING id
"""


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


def register(database: Database, registration: Registration, quota: Quota = NO_QUOTA) -> dict[str, Any]:
    """Add a server with its metadata and tools, all or nothing; return id, name, status and created_at.

    Raises DuplicateServer where a server with this name, or one that reads the same, exists; QuotaExceeded where there
    is no room for one more; ValidationFailed where only a server that exists may have this name; Unavailable where
    others kept taking and leaving it.
    """
    registration.check_new()
    for _ in range(MAX_RACES):
        row = database.write(REGISTER, _columns(registration) | quota.parameters())
        if row is not None:
            return _answer(*row)
        taken = database.read(FIND, _named(registration))
        if taken is not None:  # else it is gone again
            raise _duplicate(registration, taken[1])
        _check_room(database, quota, registration.size, servers=1)
    raise Unavailable("lost every race")


def replace(database: Database, registration: Registration, quota: Quota = NO_QUOTA) -> dict[str, Any]:
    """Make the catalogue agree with a registration; return what `register` returns, and what came of it.

    `result` is created, updated or unchanged. The same content writes nothing, however it is spelled.
    An operator's `inactive` stays. A server that exists is always replaced by what is no larger, however full the
    registry is. Raises what `register` raises, DuplicateServer where the name exists in another spelling.
    """
    for _ in range(MAX_RACES):
        row = database.read(FIND, _named(registration))
        if row is None:
            registration.check_new()
            created = database.write(REGISTER, _columns(registration) | quota.parameters())
            if created is None:
                _check_room(database, quota, registration.size, servers=1)
                continue  # somebody else was first: look again
            return {**_answer(*created), "result": "created"}
        id_, name, status, created_at, revision, body_digest, content_digest, held = row
        if name != registration.document.name:
            raise _duplicate(registration, name)
        if body_digest == registration.body_digest or content_digest == registration.content_digest:
            return {**_answer(id_, name, status, created_at), "result": "unchanged"}
        columns = _columns(registration) | quota.parameters() | {"id": id_, "revision": revision}
        if database.write(REPLACE, columns):
            return {**_answer(id_, name, status, created_at), "result": "updated"}
        if registration.size > held:
            _check_room(database, quota, registration.size - held)
    raise Unavailable("lost every race")


def _check_room(database: Database, quota: Quota, more: int, servers: int = 0) -> None:
    """Raise QuotaExceeded where there is no room for so many bytes and servers more."""
    row = database.read(HELD)
    assert row is not None
    held, held_bytes = row
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


def has_digest(database: Database, digest: bytes) -> bool:
    """Whether a stored registration was sent as the body with this SHA-256 (RFC 8785 form)."""
    row = database.read(HAS_DIGEST, {"digest": digest})
    return row is not None and bool(row[0])


def list_page(database: Database, filters: Filters, limit: int, after: int) -> Page:
    """The page of at most `limit` servers whose ids follow `after`, oldest registration first."""
    parameters: dict[str, Any] = {"after": after, "limit": limit}
    counted = False
    if filters == Filters():
        row = database.read(LIST, parameters)
    else:
        # The longest word is the rarest, as far as one can tell without asking.
        words = sorted(filter(None, map(folding.fold, (filters.search or "").split())), key=len, reverse=True)
        word, *others = [folding.pattern(word) for word in words] or [None]
        tag = None if filters.tag is None else folding.fold(filters.tag)
        unknown = filters.verdict == UNKNOWN
        counted = not (word is None and tag is None and filters.verdict is None)
        parameters |= {
            "status": filters.status,
            "type": filters.type,
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
    """One server with its metadata and tools, as JSON text. Raises ServerNotFound."""
    row = database.read(DETAIL, {"id": id_})
    if row is None:
        raise ServerNotFound
    return row[0]


def set_status(database: Database, id_: int, status: Literal["active", "inactive"]) -> dict[str, Any]:
    """Put a server into the health sweeps, or take it out; return its id, name, status, created_at and updated_at.

    Raises ServerNotFound.
    """
    row = database.write(SET_STATUS, {"id": id_, "status": status})
    if row is None:
        raise ServerNotFound
    return {**_answer(*row[:4]), "updated_at": row[4]}


def delete(database: Database, id_: int) -> None:
    """Remove a server; its tools, metadata and metrics go with it. Raises ServerNotFound."""
    if database.write(DELETE, {"id": id_}) is None:
        raise ServerNotFound


def _answer(id_: int, name: str, status: str, created_at: str) -> dict[str, Any]:
    return {"id": id_, "name": name, "status": status, "created_at": created_at}


def _named(registration: Registration) -> dict[str, Any]:
    read, look, figure = registration.name_keys
    return {"name": registration.document.name, "name_key": read, "look_key": look, "figure_key": figure}


def _columns(registration: Registration) -> dict[str, Any]:
    document, metadata = registration.document, registration.document.metadata
    return {
        **_named(registration),
        "search_fold": folding.fold(f"{document.name}\x1f{document.display_name}"),
        "display_name": document.display_name,
        "description": document.description,
        "server_type": document.server_type,
        "endpoint_url": document.endpoint_url,
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
        "content_digest": registration.content_digest,
    }


def _array(texts: Iterable[str]) -> str:
    """A text[] as Postgres writes it. psycopg takes 40 us of a registration to make one of a list (2026-11-30)."""
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"
