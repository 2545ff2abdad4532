-- Generated from sql/migrations by `make schema`; a test compares the two. Read it, do not edit it.

CREATE SCHEMA metrics;

CREATE SCHEMA registry;

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

CREATE FUNCTION registry.count_changed_servers() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
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

CREATE FUNCTION registry.count_server() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
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

CREATE FUNCTION registry.rfc3339(moment timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN to_char((moment AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text);

CREATE TABLE metrics.server_health_metrics (
    id bigint NOT NULL,
    server_id bigint NOT NULL,
    response_time_ms integer,
    status_code integer,
    error_message text,
    checked_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE metrics.server_health_metrics ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME metrics.server_health_metrics_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
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

CREATE TABLE registry.mcp_servers (
    id bigint NOT NULL,
    name character varying(100) NOT NULL,
    canonical_name character varying(100) NOT NULL,
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
    search_text text GENERATED ALWAYS AS (lower((((name)::text || ''::text) || (display_name)::text))) STORED NOT NULL
)
WITH (fillfactor='80');

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

CREATE TABLE registry.server_counts (
    status registry.server_status NOT NULL,
    server_type registry.server_type NOT NULL,
    slot smallint NOT NULL,
    servers bigint NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE registry.server_metadata (
    server_id bigint NOT NULL,
    author character varying(200),
    repository_url character varying(2048),
    documentation_url character varying(2048),
    tags jsonb
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
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE registry.tools ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME registry.tools_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY metrics.server_health_metrics
    ADD CONSTRAINT server_health_metrics_pkey PRIMARY KEY (id);

ALTER TABLE ONLY metrics.tool_invocations
    ADD CONSTRAINT tool_invocations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.mcp_servers
    ADD CONSTRAINT mcp_servers_canonical_name_key UNIQUE (canonical_name);

ALTER TABLE ONLY registry.mcp_servers
    ADD CONSTRAINT mcp_servers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY registry.server_counts
    ADD CONSTRAINT server_counts_pkey PRIMARY KEY (slot, status, server_type);

ALTER TABLE ONLY registry.server_metadata
    ADD CONSTRAINT server_metadata_pkey PRIMARY KEY (server_id);

ALTER TABLE ONLY registry.tools
    ADD CONSTRAINT tools_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.tools
    ADD CONSTRAINT tools_server_id_name_key UNIQUE (server_id, name);

CREATE INDEX server_health_metrics_server_idx ON metrics.server_health_metrics USING btree (server_id, checked_at);

CREATE INDEX tool_invocations_server_idx ON metrics.tool_invocations USING btree (server_id, invoked_at);

CREATE INDEX tool_invocations_tool_idx ON metrics.tool_invocations USING btree (tool_id);

CREATE INDEX mcp_servers_body_digest_idx ON registry.mcp_servers USING btree (body_digest);

CREATE INDEX mcp_servers_search_idx ON registry.mcp_servers USING gin (search_text registry.gin_trgm_ops);

CREATE INDEX mcp_servers_status_idx ON registry.mcp_servers USING btree (status, id);

CREATE INDEX mcp_servers_status_type_idx ON registry.mcp_servers USING btree (status, server_type, id);

CREATE INDEX mcp_servers_type_idx ON registry.mcp_servers USING btree (server_type, id);

CREATE TRIGGER count_changed AFTER UPDATE ON registry.mcp_servers REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION registry.count_changed_servers();

CREATE TRIGGER count_come_and_gone AFTER INSERT OR DELETE ON registry.mcp_servers FOR EACH ROW EXECUTE FUNCTION registry.count_server();

ALTER TABLE ONLY metrics.server_health_metrics
    ADD CONSTRAINT server_health_metrics_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY metrics.tool_invocations
    ADD CONSTRAINT tool_invocations_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY metrics.tool_invocations
    ADD CONSTRAINT tool_invocations_tool_id_fkey FOREIGN KEY (tool_id) REFERENCES registry.tools(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.server_metadata
    ADD CONSTRAINT server_metadata_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;

ALTER TABLE ONLY registry.tools
    ADD CONSTRAINT tools_server_id_fkey FOREIGN KEY (server_id) REFERENCES registry.mcp_servers(id) ON DELETE CASCADE;
