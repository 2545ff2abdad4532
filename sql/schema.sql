-- Generated from sql/migrations by `make schema`; a test compares the two. Read it, do not edit it.

CREATE SCHEMA metrics;

CREATE SCHEMA registry;

CREATE TYPE metrics.verdict AS ENUM (
    'healthy',
    'gated',
    'not_mcp',
    'http_error',
    'timeout',
    'refused',
    'dns',
    'tls',
    'blocked',
    'limited',
    'mcp_error'
);

CREATE TYPE registry.decision AS ENUM (
    'approve',
    'reject'
);

CREATE TYPE registry.grade AS ENUM (
    'notation',
    'text',
    'compatible',
    'breaking',
    'alarming'
);

CREATE TYPE registry.policy AS ENUM (
    'auto',
    'compatible',
    'manual'
);

CREATE TYPE registry.role AS ENUM (
    'reader',
    'publisher',
    'curator',
    'admin'
);

CREATE TYPE registry.server_status AS ENUM (
    'active',
    'inactive',
    'error'
);

CREATE TYPE registry.server_type AS ENUM (
    'official',
    'community',
    'mock'
);

CREATE TYPE registry.source AS ENUM (
    'declared',
    'observed'
);

CREATE FUNCTION metrics.add_days(first date, last date) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
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

CREATE FUNCTION metrics.add_times() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
    INSERT INTO metrics.sweep_times AS t (hour, bucket, n)
    SELECT pg_catalog.date_bin('1 hour', NEW.slot, '2000-01-01Z'), moved.bucket, pg_catalog.sum(moved.n)
      FROM (SELECT pg_catalog.unnest(NEW.buckets) AS bucket, pg_catalog.unnest(NEW.counts) AS n
             UNION ALL
            SELECT pg_catalog.unnest(OLD.buckets), -pg_catalog.unnest(OLD.counts)) AS moved
     GROUP BY moved.bucket
    HAVING pg_catalog.sum(moved.n) <> 0
     ORDER BY moved.bucket
        ON CONFLICT (hour, bucket) DO UPDATE SET n = t.n + excluded.n;
    RETURN NULL;
END
$$;

CREATE FUNCTION metrics.bucket(milliseconds integer) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (floor((ln((GREATEST(milliseconds, 1))::double precision) / (ln(1.05))::double precision)))::smallint;

CREATE FUNCTION metrics.bucket_value(bucket smallint) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (round(exp((((bucket)::numeric + 0.5) * ln(1.05)))))::integer;

CREATE FUNCTION metrics.drop_day(until date) RETURNS date
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
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

CREATE TABLE metrics.server_health_metrics (
    server_id bigint NOT NULL,
    slot timestamp with time zone NOT NULL,
    verdict metrics.verdict NOT NULL,
    response_time_ms integer,
    status_code smallint,
    error_message text,
    checked_at timestamp with time zone NOT NULL
)
PARTITION BY RANGE (slot);

CREATE FUNCTION metrics.first_day() RETURNS date
    LANGUAGE sql STABLE
    SET search_path TO ''
    RETURN (SELECT min(to_date("right"((child.relname)::text, 8), 'YYYYMMDD'::text)) AS min FROM (pg_inherits i JOIN pg_class child ON ((child.oid = i.inhrelid))) WHERE (i.inhparent = ('metrics.server_health_metrics'::regclass)::oid));

CREATE FUNCTION metrics.forget_server() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
    DELETE FROM metrics.server_health_metrics WHERE server_id = OLD.id;
    RETURN NULL;
END
$$;

CREATE FUNCTION metrics.is_up(verdict metrics.verdict) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (verdict = ANY (ARRAY['healthy'::metrics.verdict, 'gated'::metrics.verdict, 'limited'::metrics.verdict]));

CREATE FUNCTION registry.add_audit_months(first date, last date) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
    month  date;
    begins timestamptz;
    ends   timestamptz;
    name   text;
    added  integer := 0;
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('registry.add_audit_months'));
    FOR month IN SELECT pg_catalog.generate_series(pg_catalog.date_trunc('month', first::timestamp), last,
                                                   interval '1 month')::date LOOP
        name := 'audit_' || pg_catalog.to_char(month, 'YYYYMM');
        begins := month::timestamp AT TIME ZONE 'UTC';
        ends := (month + interval '1 month') AT TIME ZONE 'UTC';
        CONTINUE WHEN pg_catalog.to_regclass('registry.' || name) IS NOT NULL;
        -- Whoever adds an entry has locked this first: nobody is between choosing the rest for it and writing it there.
        LOCK TABLE registry.audit IN SHARE ROW EXCLUSIVE MODE;
        CONTINUE WHEN EXISTS (SELECT FROM registry.audit_rest WHERE occurred_at >= begins AND occurred_at < ends);
        EXECUTE pg_catalog.format('CREATE TABLE registry.%I (LIKE registry.audit INCLUDING ALL EXCLUDING IDENTITY)', name);
        EXECUTE pg_catalog.format('CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON registry.%I
                                       FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change()', name);
        EXECUTE pg_catalog.format('ALTER TABLE registry.audit ATTACH PARTITION registry.%I FOR VALUES FROM (%L) TO (%L)',
                                  name, begins, ends);
        added := added + 1;
    END LOOP;
    RETURN added;
END
$$;

CREATE FUNCTION registry.begin_entry() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(
        (TG_ARGV[1]::bigint << 48) + COALESCE(pg_catalog.pg_sequence_last_value(TG_ARGV[0]::pg_catalog.regclass), 0));
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.changed(told jsonb, other jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT jsonb_object_agg(jsonb_each.key, jsonb_each.value) AS jsonb_object_agg FROM jsonb_each(changed.told) jsonb_each(key, value) WHERE (NULLIF(jsonb_each.value, 'null'::jsonb) IS DISTINCT FROM NULLIF((changed.other -> jsonb_each.key), 'null'::jsonb)));

CREATE FUNCTION registry.count_changed_servers() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
DECLARE
    change record;
BEGIN
    FOR change IN
        SELECT status, server_type, sum(n) AS n, sum(size) AS size
          FROM (SELECT status, server_type, 1 AS n, bytes AS size FROM new_rows
                 UNION ALL
                SELECT status, server_type, -1, -bytes FROM old_rows) AS moved
         GROUP BY status, server_type
        HAVING sum(n) <> 0 OR sum(size) <> 0
         ORDER BY status, server_type
    LOOP
        UPDATE registry.server_counts AS c SET servers = c.servers + change.n, bytes = c.bytes + change.size
         WHERE c.slot = pg_backend_pid() % 8 AND c.status = change.status AND c.server_type = change.server_type;
    END LOOP;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.count_server() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE registry.server_counts SET servers = servers + 1, bytes = bytes + NEW.bytes
         WHERE slot = pg_backend_pid() % 8 AND status = NEW.status AND server_type = NEW.server_type;
    ELSE
        UPDATE registry.server_counts SET servers = servers - 1, bytes = bytes - OLD.bytes
         WHERE slot = pg_backend_pid() % 8 AND status = OLD.status AND server_type = OLD.server_type;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.delete_tools() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
    DELETE FROM registry.tools WHERE server_id = OLD.id;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.derive_metadata() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.tags_fold := registry.fold_tags(NEW.tags);
    RETURN NEW;
END
$$;

CREATE FUNCTION registry.derive_server() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.name_key := registry.name_key(NEW.name);
    NEW.look_key := registry.look_key(NEW.name);
    NEW.figure_key := registry.figure_key(NEW.name);
    -- The separator is a control character that no search may contain.
    NEW.search_fold := registry.fold(NEW.name || E'\x1f' || NEW.display_name);
    RETURN NEW;
END
$$;

CREATE FUNCTION registry.drop_audit_month(until date) RETURNS date
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $_$
DECLARE
    month date;
    bound date := LEAST(until, (pg_catalog.now() AT TIME ZONE 'UTC')::date - 31);
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('registry.add_audit_months'));
    SELECT min(pg_catalog.to_date(pg_catalog.right(child.relname, 6), 'YYYYMM'))
      INTO month
      FROM pg_catalog.pg_inherits AS i
      JOIN pg_catalog.pg_class AS child ON child.oid = i.inhrelid
     WHERE i.inhparent = 'registry.audit'::pg_catalog.regclass
       AND child.relname ~ '^audit_[0-9]{6}$';
    IF month + interval '1 month' <= bound THEN
        EXECUTE pg_catalog.format('DROP TABLE registry.%I', 'audit_' || pg_catalog.to_char(month, 'YYYYMM'));
        RETURN month;
    END IF;
    -- What was in no month goes when the last of it is too old: its rows cannot be deleted.
    SELECT max(occurred_at AT TIME ZONE 'UTC')::date INTO month FROM registry.audit_rest;
    IF month < bound THEN
        -- An entry that was not committed yet may be a young one: look again when nobody adds any. The parent with all its
        -- tables, because whoever adds an entry locks the parent first.
        LOCK TABLE registry.audit IN ACCESS EXCLUSIVE MODE;
        SELECT max(occurred_at AT TIME ZONE 'UTC')::date INTO month FROM registry.audit_rest;
    END IF;
    IF month < bound THEN
        DROP TABLE registry.audit_rest;
        CREATE TABLE registry.audit_rest PARTITION OF registry.audit DEFAULT;
        CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON registry.audit_rest
            FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change();
        RETURN month;
    END IF;
    RETURN NULL;
END
$_$;

CREATE FUNCTION registry.drop_documents(slice integer, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
    found bytea[];
    gone  integer;
BEGIN
    SELECT array_agg(digest) INTO found
      FROM (SELECT d.digest
              FROM registry.documents AS d
             WHERE pg_catalog.get_byte(d.digest, 0) >> 4 = slice
               AND d.digest NOT IN (SELECT used.digest
                                      FROM registry.snapshots AS s,
                                           unnest(s.tools || s.prompts || s.resources || s.templates) AS used (digest)
                                     WHERE pg_catalog.get_byte(used.digest, 0) >> 4 = slice)
             LIMIT most
               FOR UPDATE OF d SKIP LOCKED) AS unused;
    IF found IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM registry.documents AS d
     WHERE d.digest = ANY (found)
       AND d.digest NOT IN (SELECT used.digest
                              FROM registry.snapshots AS s,
                                   unnest(s.tools || s.prompts || s.resources || s.templates) AS used (digest)
                             WHERE pg_catalog.get_byte(used.digest, 0) >> 4 = slice);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;

CREATE FUNCTION registry.end_probe_headers() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
    UPDATE registry.probe_headers SET ended_at = now() WHERE server_id = NEW.id AND ended_at IS NULL;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.spelling(name text, number text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN translate((CASE WHEN (name ~~ '%/%'::text) THEN (btrim(regexp_replace(split_part(lower((name COLLATE "C")), '/'::text, 1), '[._-]+'::text, '-'::text, 'g'::text), '-'::text) || '/'::text) ELSE ''::text END || regexp_replace(regexp_replace(split_part(lower((name COLLATE "C")), '/'::text, '-1'::integer), '[._-]+'::text, '-'::text, 'g'::text), (((('(?<!'::text || number) || ')-|-(?!'::text) || number) || ')'::text), ''::text, 'g'::text)), '01'::text, 'ol'::text);

CREATE FUNCTION registry.figure_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN registry.spelling(translate(name, 'I'::text, 'l'::text), '[0-9lo]'::text);

CREATE FUNCTION registry.seen(given text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN regexp_replace(given, '[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]'::text, ''::text, 'g'::text);

CREATE FUNCTION registry.fold(given text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN NORMALIZE(casefold((NORMALIZE(registry.seen(given), NFKC) COLLATE pg_unicode_fast)), NFKC);

CREATE FUNCTION registry.fold_tags(tags jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg(registry.fold(regexp_replace(tag.value, '^\s+|\s+$'::text, ''::text, 'g'::text))) AS array_agg FROM jsonb_array_elements_text(fold_tags.tags) tag(value) WHERE (char_length(tag.value) <= 64));

CREATE FUNCTION registry.forget_offer() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
BEGIN
    NEW.offer_digest := NULL;
    RETURN NEW;
END
$$;

CREATE FUNCTION registry.hold_documents() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
    named bytea[];
    held  integer;
BEGIN
    SELECT array_agg(DISTINCT one.digest) INTO named
      FROM added AS s, unnest(s.tools || s.prompts || s.resources || s.templates) AS one (digest);
    -- In one order, so that two who hold the same never wait for each other.
    SELECT count(*) INTO held
      FROM (SELECT FROM registry.documents WHERE digest = ANY (named) ORDER BY digest FOR KEY SHARE) AS locked;
    IF held < COALESCE(array_length(named, 1), 0) THEN
        RAISE serialization_failure USING MESSAGE = 'a document of the snapshot is not there';
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.keep_endpoint() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.retired_at IS NULL) THEN
        INSERT INTO registry.endpoint_verdicts (endpoint_id, verdict)
        VALUES (NEW.id, (SELECT h.verdict FROM registry.endpoint_health AS h WHERE h.endpoint_id = NEW.id))
            ON CONFLICT (endpoint_id) DO UPDATE SET verdict = excluded.verdict;
    ELSE
        DELETE FROM registry.endpoint_verdicts WHERE endpoint_id = OLD.id;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.keep_verdict() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE registry.endpoint_verdicts SET verdict = NULL WHERE endpoint_id = OLD.endpoint_id;
    ELSE
        UPDATE registry.endpoint_verdicts SET verdict = NEW.verdict WHERE endpoint_id = NEW.endpoint_id;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.live_endpoints(given bigint) RETURNS bigint
    LANGUAGE sql
    SET search_path TO ''
    AS $$
    SELECT count(*) FROM registry.endpoints WHERE server_id = given AND retired_at IS NULL
$$;

CREATE FUNCTION registry.look_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN registry.spelling(translate(name, 'I'::text, 'l'::text), '[0-9]'::text);

CREATE FUNCTION registry.name_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN registry.spelling(name, '[0-9]'::text);

CREATE FUNCTION registry.namespace_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN translate(ltrim(regexp_replace(split_part(lower((name COLLATE "C")), '/'::text, 1), '[._-]+'::text, '-'::text, 'g'::text), '-'::text), '01'::text, 'ol'::text);

CREATE FUNCTION registry.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
BEGIN
    RAISE EXCEPTION 'registry.audit is only ever added to' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TABLE registry.mcp_servers (
    id bigint NOT NULL,
    name character varying(100) NOT NULL,
    canonical_name character varying(100),
    display_name character varying(200) NOT NULL,
    description text,
    server_type registry.server_type NOT NULL,
    endpoint_url character varying(2048) NOT NULL,
    health_url character varying(2048),
    status registry.server_status DEFAULT 'active'::registry.server_status NOT NULL,
    version character varying(255),
    last_health_check timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    tools_count integer DEFAULT 0 NOT NULL,
    revision bigint DEFAULT 1 NOT NULL,
    body_digest bytea NOT NULL,
    content_digest bytea NOT NULL,
    search_text text GENERATED ALWAYS AS (lower((((name)::text || ''::text) || (display_name)::text))) STORED NOT NULL,
    moved_at timestamp with time zone DEFAULT now() NOT NULL,
    name_key character varying(100) COLLATE pg_catalog."C",
    look_key character varying(100) COLLATE pg_catalog."C",
    figure_key character varying(100) COLLATE pg_catalog."C",
    search_fold text,
    bytes integer DEFAULT 0 NOT NULL,
    endpoint_id bigint,
    offer_digest bytea,
    owner character varying(63) DEFAULT 'default'::character varying NOT NULL,
    ledger_digest bytea DEFAULT '\x'::bytea,
    CONSTRAINT mcp_servers_derived_not_null CHECK (((name_key IS NOT NULL) AND (look_key IS NOT NULL) AND (figure_key IS NOT NULL) AND (search_fold IS NOT NULL)))
)
WITH (fillfactor='80');

CREATE FUNCTION registry.remove_and_hold(given bigint, seconds integer, team character varying) RETURNS SETOF registry.mcp_servers
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
DECLARE
    held registry.mcp_servers;
BEGIN
    PERFORM FROM registry.mcp_servers WHERE id = given AND (team IS NULL OR owner = team);
    IF NOT FOUND THEN -- nobody waits for a server that there is not
        RETURN;
    END IF;
    LOCK TABLE registry.mcp_servers IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM registry.mcp_servers WHERE id = given AND (team IS NULL OR owner = team) RETURNING * INTO held;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM registry.held_names WHERE held_until < now();
    INSERT INTO registry.held_names (name_key, look_key, figure_key, name, held_until, owner)
    VALUES (held.name_key, held.look_key, held.figure_key, held.name, now() + make_interval(secs => seconds), held.owner)
        ON CONFLICT (name_key) DO UPDATE
       SET look_key = excluded.look_key,
           figure_key = excluded.figure_key,
           name = excluded.name,
           held_until = excluded.held_until,
           owner = excluded.owner;
    RETURN NEXT held;
END
$$;

CREATE FUNCTION registry.remove_and_hold(given bigint, seconds integer) RETURNS boolean
    LANGUAGE sql
    RETURN (EXISTS (SELECT FROM registry.remove_and_hold(remove_and_hold.given, remove_and_hold.seconds, NULL::character varying) remove_and_hold(id, name, canonical_name, display_name, description, server_type, endpoint_url, health_url, status, version, last_health_check, created_at, updated_at, tools_count, revision, body_digest, content_digest, search_text, moved_at, name_key, look_key, figure_key, search_fold, bytes, endpoint_id, offer_digest, owner)));

CREATE FUNCTION registry.rfc3339(moment timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN to_char((moment AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text);

CREATE FUNCTION registry.set_endpoint() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
    number bigint;
BEGIN
    DELETE FROM registry.endpoints WHERE server_id = NEW.id AND url <> NEW.endpoint_url;
    INSERT INTO registry.endpoints AS e (server_id, url, health_url, declared, lease_until)
    VALUES (NEW.id, NEW.endpoint_url, NEW.health_url, false, now() + interval '1 day')
        ON CONFLICT (server_id, url) DO UPDATE
       SET health_url = excluded.health_url,
           lease_until = CASE WHEN NOT e.declared THEN excluded.lease_until END,
           retired_at = NULL,
           pulse = NULL,
           moved_at = now(),
           introduce_at = now()
    RETURNING e.id INTO number;
    DELETE FROM registry.endpoint_health WHERE endpoint_id = number;
    UPDATE registry.mcp_servers SET endpoint_id = number WHERE id = NEW.id;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.settled_entry(entries regclass, word integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
    given     bigint := COALESCE(pg_catalog.pg_sequence_last_value(
                            pg_catalog.pg_get_serial_sequence(entries::text, 'id')::pg_catalog.regclass), 0);
    under_way bigint;
BEGIN
    WITH locks AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks)
    SELECT min(((classid::bigint & 65535) << 32) + objid::bigint)
      INTO under_way
      FROM locks
     WHERE locktype = 'advisory'
       AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
       AND objsubid = 1
       AND classid::bigint >> 16 = word
       AND virtualtransaction IN (SELECT virtualtransaction
                                    FROM locks
                                   WHERE locktype = 'relation'
                                     AND relation = entries
                                     AND mode = 'RowExclusiveLock'
                                     AND granted);
    RETURN LEAST(given, under_way);
END
$$;

CREATE FUNCTION registry.tell_removed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
    INSERT INTO registry.changes (server_id, name, owner, kind)
    SELECT id, name, owner, 'removed' FROM gone ORDER BY id;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.tell_status() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
    -- Most sweeps find every server as it was.
    IF NOT EXISTS (SELECT FROM added) THEN
        RETURN NULL;
    END IF;
    INSERT INTO registry.changes (server_id, name, owner, kind, before, after, reasons)
    SELECT s.id, s.name, s.owner, 'status', ('{"status":"' || t.from_status || '"}')::json,
           ('{"status":"' || t.to_status || '"}')::json, ARRAY[t.reason]
      FROM added AS t
      JOIN registry.mcp_servers AS s ON s.id = t.server_id
     ORDER BY t.id;
    RETURN NULL;
END
$$;

CREATE FUNCTION registry.use_endpoints(given bigint[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
    changed integer;
BEGIN
    PERFORM FROM registry.mcp_servers WHERE id = ANY (given) ORDER BY id FOR NO KEY UPDATE;
    WITH best AS (
        SELECT DISTINCT ON (e.server_id) e.server_id, e.id, e.url, e.health_url
          FROM registry.endpoints AS e
          LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
         WHERE e.server_id = ANY (given)
           AND e.retired_at IS NULL
         ORDER BY e.server_id, e.conflict_at IS NULL DESC, COALESCE(metrics.is_up(h.verdict), false) DESC,
                  e.declared DESC, e.created_at DESC, e.id DESC
    )
    UPDATE registry.mcp_servers AS s
       SET endpoint_id = best.id,
           endpoint_url = best.url,
           health_url = best.health_url
      FROM best
     WHERE s.id = best.server_id
       AND s.endpoint_id IS DISTINCT FROM best.id;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

CREATE TABLE metrics.endpoint_changes (
    id bigint NOT NULL,
    server_id bigint NOT NULL,
    endpoint_id bigint NOT NULL,
    url character varying(2048) NOT NULL,
    change text NOT NULL,
    from_verdict metrics.verdict,
    verdict metrics.verdict,
    reason text NOT NULL,
    evidence json,
    occurred_at timestamp with time zone DEFAULT now() NOT NULL,
    more integer DEFAULT 0 NOT NULL,
    CONSTRAINT endpoint_changes_change_check CHECK ((change = ANY (ARRAY['added'::text, 'verdict'::text, 'retired'::text, 'removed'::text, 'conflict'::text])))
);

ALTER TABLE metrics.endpoint_changes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME metrics.endpoint_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE metrics.folded_days (
    day date NOT NULL,
    folded_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE metrics.server_health_hours (
    server_id bigint NOT NULL,
    hour timestamp with time zone NOT NULL,
    checks integer NOT NULL,
    up integer NOT NULL,
    p50_ms integer,
    p95_ms integer,
    max_ms integer,
    buckets smallint[] NOT NULL,
    counts integer[] NOT NULL
);

CREATE TABLE metrics.status_transitions (
    id bigint NOT NULL,
    server_id bigint NOT NULL,
    from_status registry.server_status NOT NULL,
    to_status registry.server_status NOT NULL,
    verdict metrics.verdict,
    reason text NOT NULL,
    occurred_at timestamp with time zone NOT NULL
);

ALTER TABLE metrics.status_transitions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME metrics.status_transitions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE metrics.sweep_shards (
    slot timestamp with time zone NOT NULL,
    shard integer NOT NULL,
    checked integer NOT NULL,
    up integer NOT NULL,
    gone integer NOT NULL,
    suspect boolean NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    buckets smallint[] NOT NULL,
    counts integer[] NOT NULL
);

CREATE TABLE metrics.sweep_times (
    hour timestamp with time zone NOT NULL,
    bucket smallint NOT NULL,
    n bigint NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE metrics.sweeps (
    slot timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone DEFAULT now() NOT NULL,
    dispatched_at timestamp with time zone,
    listed_at timestamp with time zone DEFAULT now() NOT NULL,
    servers integer DEFAULT 0 NOT NULL,
    shards integer DEFAULT 0 NOT NULL,
    settled_at timestamp with time zone,
    checked integer DEFAULT 0 NOT NULL,
    up integer DEFAULT 0 NOT NULL,
    gone integer DEFAULT 0 NOT NULL,
    suspect boolean DEFAULT false NOT NULL,
    finished_at timestamp with time zone,
    buckets smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    counts integer[] DEFAULT '{}'::integer[] NOT NULL
);

CREATE TABLE metrics.tool_invocations (
    id bigint NOT NULL,
    server_id bigint NOT NULL,
    tool_id bigint NOT NULL,
    invoked_at timestamp with time zone DEFAULT now() NOT NULL,
    duration_ms integer,
    success boolean NOT NULL
);

ALTER TABLE metrics.tool_invocations ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME metrics.tool_invocations_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE registry.approvals (
    id bigint NOT NULL,
    server_id bigint NOT NULL,
    digest bytea NOT NULL,
    snapshot_id bigint NOT NULL,
    decision registry.decision NOT NULL,
    reason character varying(500),
    decided_by character varying(600) NOT NULL,
    decided_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT approvals_digest_check CHECK ((length(digest) = 32))
);

ALTER TABLE registry.approvals ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME registry.approvals_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE registry.audit (
    id bigint NOT NULL,
    occurred_at timestamp with time zone DEFAULT now() NOT NULL,
    actor character varying(600) NOT NULL,
    role registry.role NOT NULL,
    team character varying(63) NOT NULL,
    action character varying(40) NOT NULL,
    target character varying(200) NOT NULL,
    before jsonb,
    after jsonb,
    request_id character varying(100) NOT NULL,
    address character varying(45) NOT NULL
)
PARTITION BY RANGE (occurred_at);

ALTER TABLE registry.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME registry.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE registry.audit_rest (
    id bigint CONSTRAINT audit_id_not_null NOT NULL,
    occurred_at timestamp with time zone DEFAULT now() CONSTRAINT audit_occurred_at_not_null NOT NULL,
    actor character varying(600) CONSTRAINT audit_actor_not_null NOT NULL,
    role registry.role CONSTRAINT audit_role_not_null NOT NULL,
    team character varying(63) CONSTRAINT audit_team_not_null NOT NULL,
    action character varying(40) CONSTRAINT audit_action_not_null NOT NULL,
    target character varying(200) CONSTRAINT audit_target_not_null NOT NULL,
    before jsonb,
    after jsonb,
    request_id character varying(100) CONSTRAINT audit_request_id_not_null NOT NULL,
    address character varying(45) CONSTRAINT audit_address_not_null NOT NULL
);

CREATE TABLE registry.changes (
    id bigint NOT NULL,
    occurred_at timestamp with time zone DEFAULT now() NOT NULL,
    server_id bigint NOT NULL,
    name character varying(100) NOT NULL,
    owner character varying(63) NOT NULL,
    source registry.source,
    kind character varying(20) NOT NULL,
    subject character varying(2048),
    grade registry.grade,
    before json,
    after json,
    reasons text[] DEFAULT '{}'::text[] NOT NULL
);

ALTER TABLE registry.changes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME registry.changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE registry.documents (
    digest bytea NOT NULL,
    raw bytea NOT NULL,
    prompt bytea,
    contract bytea,
    document json NOT NULL,
    CONSTRAINT documents_contract_check CHECK ((length(contract) = 32)),
    CONSTRAINT documents_digest_check CHECK ((length(digest) = 32)),
    CONSTRAINT documents_prompt_check CHECK ((length(prompt) = 32)),
    CONSTRAINT documents_raw_check CHECK ((length(raw) = 32))
);

CREATE TABLE registry.endpoint_health (
    endpoint_id bigint NOT NULL,
    verdict metrics.verdict NOT NULL,
    response_time_ms integer,
    status_code smallint,
    error_message text,
    checked_at timestamp with time zone NOT NULL,
    up_at timestamp with time zone,
    was metrics.verdict,
    since timestamp with time zone NOT NULL,
    times integer DEFAULT 1 NOT NULL,
    ask_again_at timestamp with time zone
)
WITH (fillfactor='45');

CREATE TABLE registry.endpoint_verdicts (
    endpoint_id bigint NOT NULL,
    verdict metrics.verdict
);

CREATE TABLE registry.endpoints (
    id bigint NOT NULL,
    server_id bigint NOT NULL,
    url character varying(2048) NOT NULL,
    health_url character varying(2048),
    declared boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    announced_at timestamp with time zone DEFAULT now() NOT NULL,
    lease_until timestamp with time zone,
    moved_at timestamp with time zone DEFAULT now() NOT NULL,
    retired_at timestamp with time zone,
    body_digest bytea,
    offer_digest bytea,
    conflict_at timestamp with time zone,
    pulse text,
    era text,
    introduced_at timestamp with time zone,
    introduction json,
    auth json,
    learnt_at timestamp with time zone,
    visited_at timestamp with time zone,
    introduce_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_digest bytea,
    CONSTRAINT endpoints_seen_digest_check CHECK ((length(seen_digest) = 32))
)
WITH (fillfactor='80');

ALTER TABLE registry.endpoints ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME registry.endpoints_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE registry.held_names (
    name_key character varying(100) NOT NULL COLLATE pg_catalog."C",
    look_key character varying(100) NOT NULL COLLATE pg_catalog."C",
    figure_key character varying(100) NOT NULL COLLATE pg_catalog."C",
    name character varying(100) NOT NULL,
    held_until timestamp with time zone NOT NULL,
    owner character varying(63) DEFAULT 'default'::character varying NOT NULL
);

CREATE TABLE registry.issuers (
    id character varying(63) NOT NULL,
    issuer character varying(500) NOT NULL,
    audience character varying(500) NOT NULL,
    claims jsonb NOT NULL,
    team character varying(63) NOT NULL,
    role registry.role NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT issuers_claims_check CHECK (((jsonb_typeof(claims) = 'object'::text) AND (claims <> '{}'::jsonb))),
    CONSTRAINT issuers_id_check CHECK (((id)::text ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'::text))
);

CREATE TABLE registry.ledger (
    server_id bigint NOT NULL,
    revision integer DEFAULT 1 NOT NULL,
    declared_id bigint,
    observed_id bigint,
    state character varying(20),
    reason character varying(300),
    flux smallint DEFAULT 0 NOT NULL,
    agrees boolean,
    policy registry.policy,
    compatible_id bigint,
    approved_id bigint,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ledger_state_check CHECK (((state)::text = ANY ((ARRAY['observed'::character varying, 'gated'::character varying, 'degraded'::character varying, 'unstable'::character varying])::text[])))
);

ALTER TABLE registry.mcp_servers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME registry.mcp_servers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE registry.migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE registry.probe_headers (
    secret uuid NOT NULL,
    server_id bigint NOT NULL,
    names text[] NOT NULL,
    begun_at timestamp with time zone DEFAULT now() NOT NULL,
    given_at timestamp with time zone,
    ended_at timestamp with time zone
);

CREATE TABLE registry.published (
    bus character varying(256) NOT NULL,
    through bigint NOT NULL,
    published_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE registry.server_counts (
    status registry.server_status NOT NULL,
    server_type registry.server_type NOT NULL,
    slot smallint NOT NULL,
    servers bigint NOT NULL,
    bytes bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE registry.server_health (
    server_id bigint NOT NULL,
    verdict metrics.verdict NOT NULL,
    response_time_ms integer,
    status_code smallint,
    error_message text,
    checked_at timestamp with time zone NOT NULL,
    up_at timestamp with time zone
)
WITH (fillfactor='45');

CREATE TABLE registry.server_metadata (
    server_id bigint NOT NULL,
    author character varying(200),
    repository_url character varying(2048),
    documentation_url character varying(2048),
    tags jsonb,
    tags_fold text[]
);

CREATE TABLE registry.snapshots (
    id bigint NOT NULL,
    server_id bigint NOT NULL,
    source registry.source NOT NULL,
    digest bytea NOT NULL,
    prompt bytea NOT NULL,
    tools_raw bytea,
    tools_prompt bytea,
    tools_contract bytea,
    first_seen timestamp with time zone NOT NULL,
    last_seen timestamp with time zone,
    version character varying(255),
    about json NOT NULL,
    tools bytea[],
    prompts bytea[],
    resources bytea[],
    templates bytea[],
    CONSTRAINT snapshots_digest_check CHECK ((length(digest) = 32)),
    CONSTRAINT snapshots_prompt_check CHECK ((length(prompt) = 32)),
    CONSTRAINT snapshots_tools_contract_check CHECK ((length(tools_contract) = 32)),
    CONSTRAINT snapshots_tools_prompt_check CHECK ((length(tools_prompt) = 32)),
    CONSTRAINT snapshots_tools_raw_check CHECK ((length(tools_raw) = 32))
);

ALTER TABLE registry.snapshots ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME registry.snapshots_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE registry.team_prefixes (
    prefix character varying(100) NOT NULL,
    key text GENERATED ALWAYS AS (registry.name_key((prefix)::text)) STORED,
    figure_key text GENERATED ALWAYS AS (registry.figure_key((prefix)::text)) STORED,
    namespace text GENERATED ALWAYS AS (
CASE
    WHEN (strpos((prefix)::text, '/'::text) = 0) THEN registry.namespace_key((prefix)::text)
    ELSE NULL::text
END) STORED,
    numbered boolean GENERATED ALWAYS AS (((prefix)::text ~ '[0-9][._-]+$'::text)) STORED,
    team character varying(63) NOT NULL,
    CONSTRAINT team_prefixes_prefix_check CHECK (((prefix)::text ~ '^[a-z0-9][a-z0-9._-]*([._-]|/([a-z0-9][a-z0-9._-]*[._-])?)$'::text))
);

CREATE TABLE registry.teams (
    name character varying(63) NOT NULL,
    contact character varying(200),
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT teams_name_check CHECK (((name)::text ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'::text))
);

CREATE TABLE registry.tokens (
    id character varying(16) NOT NULL,
    digest bytea NOT NULL,
    name character varying(100) NOT NULL,
    team character varying(63) NOT NULL,
    role registry.role NOT NULL,
    created_by character varying(200) NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    last_used_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT tokens_digest_check CHECK ((octet_length(digest) = 32))
);

CREATE TABLE registry.tools (
    id bigint NOT NULL,
    server_id bigint NOT NULL,
    "position" integer NOT NULL,
    name character varying(128) NOT NULL,
    title text,
    description text,
    input_schema json NOT NULL,
    output_schema json,
    annotations json,
    category character varying(50),
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    extra json
);

ALTER TABLE registry.tools ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME registry.tools_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY registry.audit ATTACH PARTITION registry.audit_rest DEFAULT;

ALTER TABLE ONLY metrics.endpoint_changes
    ADD CONSTRAINT endpoint_changes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY metrics.folded_days
    ADD CONSTRAINT folded_days_pkey PRIMARY KEY (day);

ALTER TABLE ONLY metrics.server_health_hours
    ADD CONSTRAINT server_health_hours_pkey PRIMARY KEY (server_id, hour);

ALTER TABLE ONLY metrics.server_health_metrics
    ADD CONSTRAINT server_health_metrics_pkey PRIMARY KEY (server_id, slot) INCLUDE (verdict, response_time_ms);

ALTER TABLE ONLY metrics.status_transitions
    ADD CONSTRAINT status_transitions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY metrics.sweep_shards
    ADD CONSTRAINT sweep_shards_pkey PRIMARY KEY (slot, shard);

ALTER TABLE ONLY metrics.sweep_times
    ADD CONSTRAINT sweep_times_pkey PRIMARY KEY (hour, bucket);

ALTER TABLE ONLY metrics.sweeps
    ADD CONSTRAINT sweeps_int8range_excl EXCLUDE USING gist (int8range((EXTRACT(epoch FROM (slot AT TIME ZONE 'UTC'::text)))::bigint, ((EXTRACT(epoch FROM (slot AT TIME ZONE 'UTC'::text)))::bigint + 5)) WITH &&);

ALTER TABLE ONLY metrics.sweeps
    ADD CONSTRAINT sweeps_pkey PRIMARY KEY (slot);

ALTER TABLE ONLY metrics.tool_invocations
    ADD CONSTRAINT tool_invocations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.approvals
    ADD CONSTRAINT approvals_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id, occurred_at);

ALTER TABLE ONLY registry.audit_rest
    ADD CONSTRAINT audit_rest_pkey PRIMARY KEY (id, occurred_at);

ALTER TABLE ONLY registry.changes
    ADD CONSTRAINT changes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.documents
    ADD CONSTRAINT documents_pkey PRIMARY KEY (digest);

ALTER TABLE ONLY registry.endpoint_health
    ADD CONSTRAINT endpoint_health_pkey PRIMARY KEY (endpoint_id);

ALTER TABLE ONLY registry.endpoint_verdicts
    ADD CONSTRAINT endpoint_verdicts_pkey PRIMARY KEY (endpoint_id);

ALTER TABLE ONLY registry.endpoints
    ADD CONSTRAINT endpoints_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.endpoints
    ADD CONSTRAINT endpoints_server_id_url_key UNIQUE (server_id, url);

ALTER TABLE ONLY registry.held_names
    ADD CONSTRAINT held_names_pkey PRIMARY KEY (name_key);

ALTER TABLE ONLY registry.issuers
    ADD CONSTRAINT issuers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.ledger
    ADD CONSTRAINT ledger_pkey PRIMARY KEY (server_id);

ALTER TABLE ONLY registry.mcp_servers
    ADD CONSTRAINT mcp_servers_canonical_name_key UNIQUE (canonical_name);

ALTER TABLE ONLY registry.mcp_servers
    ADD CONSTRAINT mcp_servers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY registry.probe_headers
    ADD CONSTRAINT probe_headers_pkey PRIMARY KEY (secret);

ALTER TABLE ONLY registry.published
    ADD CONSTRAINT published_pkey PRIMARY KEY (bus);

ALTER TABLE ONLY registry.server_counts
    ADD CONSTRAINT server_counts_pkey PRIMARY KEY (slot, status, server_type);

ALTER TABLE ONLY registry.server_health
    ADD CONSTRAINT server_health_pkey PRIMARY KEY (server_id);

ALTER TABLE ONLY registry.server_metadata
    ADD CONSTRAINT server_metadata_pkey PRIMARY KEY (server_id);

ALTER TABLE ONLY registry.snapshots
    ADD CONSTRAINT snapshots_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.team_prefixes
    ADD CONSTRAINT team_prefixes_key_key UNIQUE (key);

ALTER TABLE ONLY registry.team_prefixes
    ADD CONSTRAINT team_prefixes_pkey PRIMARY KEY (prefix);

ALTER TABLE ONLY registry.teams
    ADD CONSTRAINT teams_pkey PRIMARY KEY (name);

ALTER TABLE ONLY registry.tokens
    ADD CONSTRAINT tokens_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.tools
    ADD CONSTRAINT tools_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.tools
    ADD CONSTRAINT tools_server_id_name_key UNIQUE (server_id, name);

CREATE INDEX endpoint_changes_server_idx ON metrics.endpoint_changes USING btree (server_id, occurred_at);

CREATE INDEX endpoint_changes_time_idx ON metrics.endpoint_changes USING brin (occurred_at);

CREATE INDEX endpoint_changes_verdict_idx ON metrics.endpoint_changes USING btree (endpoint_id, occurred_at) WHERE (change = 'verdict'::text);

CREATE INDEX server_health_hours_hour_idx ON metrics.server_health_hours USING brin (hour);

CREATE INDEX server_health_metrics_slot_idx ON ONLY metrics.server_health_metrics USING brin (slot);

CREATE INDEX status_transitions_server_idx ON metrics.status_transitions USING btree (server_id, occurred_at);

CREATE INDEX status_transitions_time_idx ON metrics.status_transitions USING brin (occurred_at);

CREATE INDEX sweeps_unsettled_idx ON metrics.sweeps USING btree (slot) WHERE (settled_at IS NULL);

CREATE INDEX tool_invocations_server_idx ON metrics.tool_invocations USING btree (server_id, invoked_at);

CREATE INDEX tool_invocations_tool_idx ON metrics.tool_invocations USING btree (tool_id);

CREATE INDEX approvals_server_id_idx ON registry.approvals USING btree (server_id, digest, id);

CREATE INDEX audit_actor_idx ON ONLY registry.audit USING btree (actor, id);

CREATE INDEX audit_rest_actor_id_idx ON registry.audit_rest USING btree (actor, id);

CREATE INDEX audit_target_idx ON ONLY registry.audit USING btree (target, id);

CREATE INDEX audit_rest_target_id_idx ON registry.audit_rest USING btree (target, id);

CREATE INDEX changes_grade_idx ON registry.changes USING btree (id) WHERE (grade >= 'breaking'::registry.grade);

CREATE INDEX changes_kind_idx ON registry.changes USING btree (kind, id);

CREATE INDEX changes_name_idx ON registry.changes USING btree (name, id);

CREATE INDEX changes_occurred_at_idx ON registry.changes USING brin (occurred_at);

CREATE INDEX changes_owner_idx ON registry.changes USING btree (owner, id);

CREATE INDEX changes_server_id_idx ON registry.changes USING btree (server_id, id);

CREATE INDEX endpoint_verdicts_verdict_idx ON registry.endpoint_verdicts USING btree (verdict, endpoint_id);

CREATE INDEX endpoints_body_digest_idx ON registry.endpoints USING btree (body_digest);

CREATE INDEX endpoints_introduce_idx ON registry.endpoints USING btree (introduce_at) WHERE (retired_at IS NULL);

CREATE INDEX issuers_issuer_idx ON registry.issuers USING btree (issuer);

CREATE INDEX issuers_team_idx ON registry.issuers USING btree (team);

CREATE INDEX ledger_policy_idx ON registry.ledger USING btree (server_id) WHERE (policy IS NOT NULL);

CREATE INDEX mcp_servers_body_digest_idx ON registry.mcp_servers USING btree (body_digest);

CREATE INDEX mcp_servers_endpoint_id_idx ON registry.mcp_servers USING btree (endpoint_id);

CREATE UNIQUE INDEX mcp_servers_figure_key_idx ON registry.mcp_servers USING btree (figure_key);

CREATE UNIQUE INDEX mcp_servers_look_key_idx ON registry.mcp_servers USING btree (look_key);

CREATE INDEX mcp_servers_moved_idx ON registry.mcp_servers USING btree (moved_at);

CREATE UNIQUE INDEX mcp_servers_name_key_idx ON registry.mcp_servers USING btree (name_key);

CREATE INDEX mcp_servers_owner_idx ON registry.mcp_servers USING btree (owner, id);

CREATE INDEX mcp_servers_search_fold_idx ON registry.mcp_servers USING gin (search_fold registry.gin_trgm_ops);

CREATE INDEX mcp_servers_status_idx ON registry.mcp_servers USING btree (status, id);

CREATE INDEX mcp_servers_status_type_idx ON registry.mcp_servers USING btree (status, server_type, id);

CREATE INDEX mcp_servers_type_idx ON registry.mcp_servers USING btree (server_type, id);

CREATE INDEX mcp_servers_undeclared_idx ON registry.mcp_servers USING btree (id) WHERE (offer_digest IS DISTINCT FROM ledger_digest);

CREATE INDEX probe_headers_server_id_idx ON registry.probe_headers USING btree (server_id, given_at);

CREATE INDEX server_metadata_tags_idx ON registry.server_metadata USING gin (tags_fold);

CREATE INDEX snapshots_last_seen_idx ON registry.snapshots USING btree (last_seen) WHERE (last_seen IS NOT NULL);

CREATE INDEX snapshots_server_id_idx ON registry.snapshots USING btree (server_id, source, first_seen);

CREATE INDEX team_prefixes_team_idx ON registry.team_prefixes USING btree (team);

CREATE INDEX tokens_team_idx ON registry.tokens USING btree (team);

ALTER INDEX registry.audit_actor_idx ATTACH PARTITION registry.audit_rest_actor_id_idx;

ALTER INDEX registry.audit_pkey ATTACH PARTITION registry.audit_rest_pkey;

ALTER INDEX registry.audit_target_idx ATTACH PARTITION registry.audit_rest_target_id_idx;

CREATE TRIGGER add_changed_times AFTER UPDATE OF counts ON metrics.sweeps FOR EACH ROW WHEN ((new.counts <> old.counts)) EXECUTE FUNCTION metrics.add_times();

CREATE TRIGGER add_times AFTER INSERT ON metrics.sweeps FOR EACH ROW WHEN ((new.counts <> '{}'::integer[])) EXECUTE FUNCTION metrics.add_times();

CREATE TRIGGER tell_status AFTER INSERT ON metrics.status_transitions REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION registry.tell_status();

CREATE TRIGGER audit_begins BEFORE INSERT ON registry.audit FOR EACH STATEMENT EXECUTE FUNCTION registry.begin_entry('registry.audit_id_seq', '16725');

CREATE TRIGGER audit_stays BEFORE DELETE OR UPDATE ON registry.audit FOR EACH ROW EXECUTE FUNCTION registry.refuse_change();

CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON registry.audit FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change();

CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON registry.audit_rest FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change();

CREATE TRIGGER changes_begin BEFORE INSERT ON registry.changes FOR EACH STATEMENT EXECUTE FUNCTION registry.begin_entry('registry.changes_id_seq', '17224');

CREATE TRIGGER count_changed AFTER UPDATE ON registry.mcp_servers REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION registry.count_changed_servers();

CREATE TRIGGER count_come_and_gone AFTER INSERT OR DELETE ON registry.mcp_servers FOR EACH ROW EXECUTE FUNCTION registry.count_server();

CREATE TRIGGER delete_tools AFTER DELETE ON registry.mcp_servers FOR EACH ROW EXECUTE FUNCTION registry.delete_tools();

CREATE TRIGGER derive_changed BEFORE UPDATE ON registry.mcp_servers FOR EACH ROW WHEN (((new.name_key IS NULL) OR (((new.display_name)::text <> (old.display_name)::text) AND (new.search_fold = old.search_fold)))) EXECUTE FUNCTION registry.derive_server();

CREATE TRIGGER derive_changed BEFORE UPDATE ON registry.server_metadata FOR EACH ROW WHEN (((new.tags IS DISTINCT FROM old.tags) AND (NOT (new.tags_fold IS DISTINCT FROM old.tags_fold)))) EXECUTE FUNCTION registry.derive_metadata();

CREATE TRIGGER derive_new BEFORE INSERT ON registry.mcp_servers FOR EACH ROW WHEN ((new.name_key IS NULL)) EXECUTE FUNCTION registry.derive_server();

CREATE TRIGGER derive_new BEFORE INSERT ON registry.server_metadata FOR EACH ROW WHEN (((new.tags IS NOT NULL) AND (new.tags_fold IS NULL))) EXECUTE FUNCTION registry.derive_metadata();

CREATE TRIGGER end_probe_headers AFTER UPDATE OF owner ON registry.mcp_servers FOR EACH ROW WHEN (((old.owner)::text <> (new.owner)::text)) EXECUTE FUNCTION registry.end_probe_headers();

CREATE TRIGGER forget_metrics AFTER DELETE ON registry.mcp_servers FOR EACH ROW EXECUTE FUNCTION metrics.forget_server();

CREATE TRIGGER forget_offer_of_replaced_server BEFORE UPDATE OF moved_at ON registry.mcp_servers FOR EACH ROW EXECUTE FUNCTION registry.forget_offer();

CREATE TRIGGER hold_documents AFTER INSERT ON registry.snapshots REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION registry.hold_documents();

CREATE TRIGGER keep_changed_endpoint AFTER UPDATE OF retired_at ON registry.endpoints FOR EACH ROW WHEN (((new.retired_at IS NULL) <> (old.retired_at IS NULL))) EXECUTE FUNCTION registry.keep_endpoint();

CREATE TRIGGER keep_changed_verdict AFTER UPDATE ON registry.endpoint_health FOR EACH ROW WHEN ((new.verdict <> old.verdict)) EXECUTE FUNCTION registry.keep_verdict();

CREATE TRIGGER keep_endpoint AFTER INSERT ON registry.endpoints FOR EACH ROW WHEN ((new.retired_at IS NULL)) EXECUTE FUNCTION registry.keep_endpoint();

CREATE TRIGGER keep_no_endpoint AFTER DELETE ON registry.endpoints FOR EACH ROW WHEN ((old.retired_at IS NULL)) EXECUTE FUNCTION registry.keep_endpoint();

CREATE TRIGGER keep_verdict AFTER INSERT OR DELETE ON registry.endpoint_health FOR EACH ROW EXECUTE FUNCTION registry.keep_verdict();

CREATE TRIGGER set_endpoint_of_changed_server AFTER UPDATE OF moved_at ON registry.mcp_servers FOR EACH ROW WHEN ((new.moved_at <> old.moved_at)) EXECUTE FUNCTION registry.set_endpoint();

CREATE TRIGGER set_endpoint_of_new_server AFTER INSERT ON registry.mcp_servers FOR EACH ROW WHEN ((new.endpoint_id IS NULL)) EXECUTE FUNCTION registry.set_endpoint();

CREATE TRIGGER tell_removed AFTER DELETE ON registry.mcp_servers REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION registry.tell_removed();

ALTER TABLE ONLY metrics.endpoint_changes
    ADD CONSTRAINT endpoint_changes_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY metrics.server_health_hours
    ADD CONSTRAINT server_health_hours_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY metrics.status_transitions
    ADD CONSTRAINT status_transitions_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY metrics.tool_invocations
    ADD CONSTRAINT tool_invocations_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY metrics.tool_invocations
    ADD CONSTRAINT tool_invocations_tool_id_fkey FOREIGN KEY (tool_id) REFERENCES registry.tools(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.approvals
    ADD CONSTRAINT approvals_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.endpoint_health
    ADD CONSTRAINT endpoint_health_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES registry.endpoints(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.endpoints
    ADD CONSTRAINT endpoints_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.held_names
    ADD CONSTRAINT held_names_owner_fkey FOREIGN KEY (owner) REFERENCES registry.teams(name) ON DELETE CASCADE;

ALTER TABLE ONLY registry.issuers
    ADD CONSTRAINT issuers_team_fkey FOREIGN KEY (team) REFERENCES registry.teams(name);

ALTER TABLE ONLY registry.ledger
    ADD CONSTRAINT ledger_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.mcp_servers
    ADD CONSTRAINT mcp_servers_owner_fkey FOREIGN KEY (owner) REFERENCES registry.teams(name);

ALTER TABLE ONLY registry.server_health
    ADD CONSTRAINT server_health_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.server_metadata
    ADD CONSTRAINT server_metadata_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.snapshots
    ADD CONSTRAINT snapshots_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.team_prefixes
    ADD CONSTRAINT team_prefixes_team_fkey FOREIGN KEY (team) REFERENCES registry.teams(name) ON DELETE CASCADE;

ALTER TABLE ONLY registry.tokens
    ADD CONSTRAINT tokens_team_fkey FOREIGN KEY (team) REFERENCES registry.teams(name);
