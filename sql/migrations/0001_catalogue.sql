-- The catalogue and what is measured of it: schemas registry and metrics.
--
-- What now exists: registry.mcp_servers, registry.tools, registry.server_metadata (one row per registration and
-- its parts), registry.server_counts (totals of a list, kept as servers come, go and change), and
-- metrics.server_health_metrics, metrics.tool_invocations.
--
-- Which query an index serves stands beside the index. Column limits repeat the rules of
-- mcp_registry/registration.py; a test holds the two together.

-- The schema registry is there already: the ledger of migrations is in it.
CREATE SCHEMA metrics;

-- Into a schema of ours, because `public` may be closed to us; where it is in public already, it is found there.
SET LOCAL search_path = registry, public;
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TYPE registry.server_type AS ENUM ('official', 'community', 'mock');
CREATE TYPE registry.server_status AS ENUM ('active', 'inactive', 'error');

-- RFC 3339 in UTC with Z, to the microsecond: how every timestamp leaves the registry. A single expression, so that
-- the planner inlines it.
CREATE FUNCTION registry.rfc3339(moment timestamptz) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

CREATE TABLE registry.mcp_servers (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              varchar(100) NOT NULL,
    -- The name without case and separators and with look-alike characters folded. Unique here makes `name` unique
    -- too; a second unique index could refuse a racing registration that ON CONFLICT (canonical_name) lets pass.
    canonical_name    varchar(100) NOT NULL UNIQUE,
    display_name      varchar(200) NOT NULL,
    description       text,
    server_type       registry.server_type NOT NULL,
    endpoint_url      varchar(2048) NOT NULL,
    health_url        varchar(2048),
    status            registry.server_status NOT NULL DEFAULT 'active',
    version           varchar(255),
    last_health_check timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    -- Stored, because a page of 100 servers would count the tools of 100 servers otherwise (0.61 against 0.37 ms).
    tools_count       integer NOT NULL DEFAULT 0,
    -- Compare-and-set: a registration replaces exactly the revision that it read, never one written meanwhile.
    revision          bigint NOT NULL DEFAULT 1,
    -- SHA-256 of the registration as it was sent (RFC 8785 form), and of what it means: two spellings of the same
    -- content differ in the first and agree in the second.
    body_digest       bytea NOT NULL,
    content_digest    bytea NOT NULL,
    -- Both searched columns in one, lower-cased: one trigram index plans in a fraction of what two take. The
    -- separator is a control character that no search may contain.
    search_text       text GENERATED ALWAYS AS (lower(name || E'\x1f' || display_name)) STORED NOT NULL
)
-- A health sweep rewrites last_health_check of every row each half minute; the room lets those updates stay on
-- their page and leave the indexes alone (heap-only tuples).
WITH (fillfactor = 80);

-- List with a status, with a type, with both: one page in id order, whatever its depth.
CREATE INDEX mcp_servers_status_idx ON registry.mcp_servers (status, id);
CREATE INDEX mcp_servers_type_idx ON registry.mcp_servers (server_type, id);
CREATE INDEX mcp_servers_status_type_idx ON registry.mcp_servers (status, server_type, id);
-- Search: substring of name or display name. Only a trigram index serves LIKE '%...%'.
CREATE INDEX mcp_servers_search_idx ON registry.mcp_servers USING gin (search_text gin_trgm_ops);
-- The digest handshake of PUT: is there a registration with exactly this digest?
CREATE INDEX mcp_servers_body_digest_idx ON registry.mcp_servers (body_digest);

CREATE TABLE registry.tools (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id     bigint NOT NULL REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    -- Place in the registration's list; detail answers in this order.
    position      integer NOT NULL,
    name          varchar(128) NOT NULL,
    title         text,
    description   text,
    -- json, not jsonb: a schema is kept as it was received. jsonb would reorder its keys, and the order in which an
    -- author wrote the parameters is the order in which people and models read them.
    input_schema  json NOT NULL,
    output_schema json,
    annotations   json,
    category      varchar(50),
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- Also serves detail (the tools of a server) and the cascade from mcp_servers.
    UNIQUE (server_id, name)
);

CREATE TABLE registry.server_metadata (
    server_id         bigint PRIMARY KEY REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    author            varchar(200),
    repository_url    varchar(2048),
    documentation_url varchar(2048),
    tags              jsonb
);

-- How many servers there are of each status and type. count(*) over 100,000 servers takes 13 ms, thirty times the
-- page that it accompanies.
CREATE TABLE registry.server_counts (
    status      registry.server_status NOT NULL,
    server_type registry.server_type NOT NULL,
    -- Each count is the sum of eight: a row is locked until its transaction ends, and one row alone would let only one
    -- registration commit at a time.
    slot        smallint NOT NULL,
    servers     bigint NOT NULL,
    PRIMARY KEY (slot, status, server_type)
)
WITH (fillfactor = 50);

INSERT INTO registry.server_counts (status, server_type, slot, servers)
SELECT status, server_type, slot, 0
  FROM unnest(enum_range(NULL::registry.server_status)) AS status
 CROSS JOIN unnest(enum_range(NULL::registry.server_type)) AS server_type
 CROSS JOIN generate_series(0, 7) AS slot;

-- Servers come and go one by one: a plain update of the session's slot, less than half of what a statement trigger with a
-- transition table costs for one row (0.03 against 0.08 ms, 2026-11-22).
CREATE FUNCTION registry.count_server() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = ''
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE registry.server_counts SET servers = servers + 1
         WHERE slot = pg_backend_pid() % 8 AND status = NEW.status AND server_type = NEW.server_type;
    ELSE
        UPDATE registry.server_counts SET servers = servers - 1
         WHERE slot = pg_backend_pid() % 8 AND status = OLD.status AND server_type = OLD.server_type;
    END IF;
    RETURN NULL;
END
$$;

-- They change thousands at a time, in a sweep: one update per status and type, however many rows the statement touched.
-- The rows are taken in key order, so that two statements cannot wait for each other.
CREATE FUNCTION registry.count_changed_servers() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = ''
AS $$
DECLARE
    change record;
BEGIN
    FOR change IN
        SELECT status, server_type, sum(n) AS n
          FROM (SELECT status, server_type, 1 AS n FROM new_rows
                 UNION ALL
                SELECT status, server_type, -1 FROM old_rows) AS moved
         GROUP BY status, server_type
        HAVING sum(n) <> 0
         ORDER BY status, server_type
    LOOP
        UPDATE registry.server_counts AS c SET servers = c.servers + change.n
         WHERE c.slot = pg_backend_pid() % 8 AND c.status = change.status AND c.server_type = change.server_type;
    END LOOP;
    RETURN NULL;
END
$$;

CREATE TRIGGER count_come_and_gone AFTER INSERT OR DELETE ON registry.mcp_servers
    FOR EACH ROW EXECUTE FUNCTION registry.count_server();
CREATE TRIGGER count_changed AFTER UPDATE ON registry.mcp_servers
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION registry.count_changed_servers();

CREATE TABLE metrics.server_health_metrics (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id        bigint NOT NULL REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    response_time_ms integer,
    status_code      integer,
    error_message    text,
    checked_at       timestamptz NOT NULL DEFAULT now()
);
-- Uptime and latency of one server over a period; also the cascade when a server is deleted.
CREATE INDEX server_health_metrics_server_idx ON metrics.server_health_metrics (server_id, checked_at);

CREATE TABLE metrics.tool_invocations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id   bigint NOT NULL REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    tool_id     bigint NOT NULL REFERENCES registry.tools (id) ON DELETE CASCADE,
    invoked_at  timestamptz NOT NULL DEFAULT now(),
    duration_ms integer,
    success     boolean NOT NULL
);
-- The cascades from a server and from a tool; without them a delete reads the whole table.
CREATE INDEX tool_invocations_server_idx ON metrics.tool_invocations (server_id, invoked_at);
CREATE INDEX tool_invocations_tool_idx ON metrics.tool_invocations (tool_id);
