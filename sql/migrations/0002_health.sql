-- What the health checks find: one row for each check, one last check for each server, and history that stays cheap.
--
-- What now exists: metrics.verdict; metrics.server_health_metrics anew, partitioned by day; registry.server_health (the
-- last check of each server); metrics.server_health_hours (roll-ups) and metrics.folded_days; metrics.status_transitions;
-- metrics.sweeps and metrics.sweep_shards; and the functions that make and drop the partitions.
--
-- registry.mcp_servers gains moved_at. Which query an index serves stands beside the index.

-- healthy and gated mean that the server is up (status active); with any other verdict it is not (status error).
CREATE TYPE metrics.verdict AS ENUM
    ('healthy', 'gated', 'not_mcp', 'http_error', 'timeout', 'refused', 'dns', 'tls', 'blocked');

CREATE FUNCTION metrics.is_up(verdict metrics.verdict) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN verdict IN ('healthy', 'gated');

-- Response times are counted in buckets that grow by 5 %, so that percentiles of many hours and servers can be had from
-- their sums, to 2.5 %; up to 20 ms a bucket is one number. Of 5 s there are 175 buckets.
CREATE FUNCTION metrics.bucket(milliseconds integer) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN floor(ln(greatest(milliseconds, 1)) / ln(1.05))::smallint;

CREATE FUNCTION metrics.bucket_value(bucket smallint) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN round(exp((bucket + 0.5) * ln(1.05)))::integer;

-- Nothing has ever written the table of 0001: no release before this one checked a server.
DROP TABLE metrics.server_health_metrics;

-- No foreign key: it would lock the row of the server for every check, which writes that row's page each half minute.
-- The trigger below removes the rows of a server that goes; a result that arrives just then stays until its day is dropped,
-- and nobody can ask for it.
CREATE TABLE metrics.server_health_metrics (
    server_id        bigint NOT NULL,
    -- The sweep that asked for the check. With the server it is the idempotence key: whatever is delivered twice, there is
    -- one row.
    slot             timestamptz NOT NULL,
    verdict          metrics.verdict NOT NULL,
    response_time_ms integer,
    status_code      smallint,
    error_message    text,
    checked_at       timestamptz NOT NULL,
    -- Uptime and percentiles of one server over a period come from the index alone: its rows lie on as many pages as
    -- there are sweeps.
    PRIMARY KEY (server_id, slot) INCLUDE (verdict, response_time_ms)
) PARTITION BY RANGE (slot);

-- The checks of an hour, for the roll-ups. Rows come in that order, so a few pages of index do.
CREATE INDEX server_health_metrics_slot_idx ON metrics.server_health_metrics USING brin (slot);

-- One table a day, so that a day is dropped and not deleted. Maintenance makes those of the coming days, and the writer the
-- one that it misses. Made beside the parent and attached, which lets readers and
-- writers go on; CREATE TABLE ... PARTITION OF would lock them out.
CREATE FUNCTION metrics.add_days(first date, last date) RETURNS integer
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = ''
AS $$
DECLARE
    day   date;
    name  text;
    added integer := 0;
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('metrics.add_days'));
    FOR day IN SELECT pg_catalog.generate_series(first, last, interval '1 day')::date LOOP
        name := 'server_health_metrics_' || pg_catalog.to_char(day, 'YYYYMMDD');
        CONTINUE WHEN pg_catalog.to_regclass('metrics.' || name) IS NOT NULL;
        EXECUTE pg_catalog.format('CREATE TABLE metrics.%I (LIKE metrics.server_health_metrics INCLUDING ALL)', name);
        EXECUTE pg_catalog.format(
            'ALTER TABLE metrics.server_health_metrics ATTACH PARTITION metrics.%I FOR VALUES FROM (%L) TO (%L)',
            name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        added := added + 1;
    END LOOP;
    RETURN added;
END
$$;

-- The oldest day that there is a table for.
CREATE FUNCTION metrics.first_day() RETURNS date
    LANGUAGE sql STABLE
    SET search_path = ''
    RETURN (SELECT min(pg_catalog.to_date(pg_catalog.right(child.relname, 8), 'YYYYMMDD'))
              FROM pg_catalog.pg_inherits AS i
              JOIN pg_catalog.pg_class AS child ON child.oid = i.inhrelid
             WHERE i.inhparent = 'metrics.server_health_metrics'::pg_catalog.regclass);

-- Drops the oldest day where it lies before `until`, and returns it. One a call, so that the lock on the parent is short.
CREATE FUNCTION metrics.drop_day(until date) RETURNS date
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = ''
AS $$
DECLARE
    day date;
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('metrics.add_days'));
    day := metrics.first_day();
    IF day >= until OR day IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE pg_catalog.format('DROP TABLE metrics.%I',
                              'server_health_metrics_' || pg_catalog.to_char(day, 'YYYYMMDD'));
    RETURN day;
END
$$;

-- They run as their owner: not for everybody.
REVOKE EXECUTE ON FUNCTION metrics.add_days(date, date), metrics.drop_day(date) FROM PUBLIC;

CREATE FUNCTION metrics.forget_server() RETURNS trigger
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    DELETE FROM metrics.server_health_metrics WHERE server_id = OLD.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER forget_metrics AFTER DELETE ON registry.mcp_servers
    FOR EACH ROW EXECUTE FUNCTION metrics.forget_server();

-- The last check of each server, which is also where its last_health_check comes from. Apart from mcp_servers, because it is
-- rewritten every half minute: 100 bytes here, the whole registration and its eight indexes there.
-- (mcp_servers.last_health_check stays for the release before this one, which selects it, and goes with the next.)
CREATE TABLE registry.server_health (
    server_id        bigint PRIMARY KEY REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    verdict          metrics.verdict NOT NULL,
    response_time_ms integer,
    status_code      smallint,
    error_message    text,
    checked_at       timestamptz NOT NULL,
    -- When a check last found the server up; null where none has.
    up_at            timestamptz
)
-- A sweep rewrites every row at once: with half of each page free the new versions stay on their page and the index is
-- left alone (heap-only tuples).
WITH (fillfactor = 45);

-- A sweep that was dispatched before a server moved has asked at its old address, and says nothing about the new one.
ALTER TABLE registry.mcp_servers ADD COLUMN moved_at timestamptz NOT NULL DEFAULT now();
-- The servers that have moved since a sweep was dispatched: mostly none.
CREATE INDEX mcp_servers_moved_idx ON registry.mcp_servers (moved_at);

CREATE TABLE metrics.status_transitions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id   bigint NOT NULL REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    from_status registry.server_status NOT NULL,
    to_status   registry.server_status NOT NULL,
    -- Null where an operator changed the status.
    verdict     metrics.verdict,
    reason      text NOT NULL,
    occurred_at timestamptz NOT NULL
);
-- The transitions of one server over a period, newest first; also the cascade from mcp_servers.
CREATE INDEX status_transitions_server_idx ON metrics.status_transitions (server_id, occurred_at);
-- What is older than the roll-ups is deleted by its time. Rows come in that order, so a few pages of index do.
CREATE INDEX status_transitions_time_idx ON metrics.status_transitions USING brin (occurred_at);

-- One row for each server and hour, made of the checks of a day that is over.
CREATE TABLE metrics.server_health_hours (
    server_id bigint NOT NULL REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    hour      timestamptz NOT NULL,
    checks    integer NOT NULL,
    up        integer NOT NULL,
    -- Of the checks that found the server up, as the arrays.
    p50_ms    integer,
    p95_ms    integer,
    max_ms    integer,
    buckets   smallint[] NOT NULL,
    counts    integer[] NOT NULL,
    PRIMARY KEY (server_id, hour)
);
CREATE INDEX server_health_hours_hour_idx ON metrics.server_health_hours USING brin (hour);

-- Days whose checks are in server_health_hours.
CREATE TABLE metrics.folded_days (
    day       date PRIMARY KEY,
    folded_at timestamptz NOT NULL DEFAULT now()
);

-- One row for each sweep: what was dispatched, and, once its half minute is over, what came of it.
CREATE TABLE metrics.sweeps (
    slot          timestamptz PRIMARY KEY,
    -- A dispatcher that claimed the sweep and died leaves dispatched_at null; another may claim it after a while.
    claimed_at    timestamptz NOT NULL DEFAULT now(),
    dispatched_at timestamptz,
    -- When the list of servers was read first: what may be sent of it is not older.
    listed_at     timestamptz NOT NULL DEFAULT now(),
    servers       integer NOT NULL DEFAULT 0,
    shards        integer NOT NULL DEFAULT 0,
    settled_at    timestamptz,
    checked       integer NOT NULL DEFAULT 0,
    up            integer NOT NULL DEFAULT 0,
    -- Servers that were removed, moved or taken out of service meanwhile.
    gone          integer NOT NULL DEFAULT 0,
    -- So many of the servers that were up failed at once that the fault is taken to be ours: no status was changed.
    suspect       boolean NOT NULL DEFAULT false,
    finished_at   timestamptz,
    buckets       smallint[] NOT NULL DEFAULT '{}',
    counts        integer[] NOT NULL DEFAULT '{}',
    -- Two sweeps never begin within 5 s, whoever asks for them at the same time.
    EXCLUDE USING gist (int8range(extract(epoch FROM slot AT TIME ZONE 'UTC')::bigint,
                                  extract(epoch FROM slot AT TIME ZONE 'UTC')::bigint + 5) WITH &&)
);
-- The sweeps that are to be settled.
CREATE INDEX sweeps_unsettled_idx ON metrics.sweeps (slot) WHERE settled_at IS NULL;

-- What came of one shard of a sweep. Rows of their own, because the shards of a sweep are written at the same time;
-- settling adds them up in metrics.sweeps and removes them.
CREATE TABLE metrics.sweep_shards (
    slot        timestamptz NOT NULL,
    shard       integer NOT NULL,
    checked     integer NOT NULL,
    up          integer NOT NULL,
    gone        integer NOT NULL,
    suspect     boolean NOT NULL,
    finished_at timestamptz NOT NULL,
    buckets     smallint[] NOT NULL,
    counts      integer[] NOT NULL,
    PRIMARY KEY (slot, shard)
);
