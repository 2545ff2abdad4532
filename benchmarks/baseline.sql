-- The tables of benchmarks/baseline.py: what the product document lists, with the indexes that its queries need.

CREATE TABLE mcp_servers (
    id                bigserial PRIMARY KEY,
    name              varchar(100) NOT NULL UNIQUE,
    display_name      varchar(200) NOT NULL,
    description       text,
    server_type       varchar(20) NOT NULL CHECK (server_type IN ('official', 'community', 'mock')),
    endpoint_url      varchar(2048) NOT NULL,
    health_url        varchar(2048),
    status            varchar(20) NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'error')),
    version           varchar(255),
    last_health_check timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX mcp_servers_status_idx ON mcp_servers (status);
CREATE INDEX mcp_servers_server_type_idx ON mcp_servers (server_type);

CREATE TABLE tools (
    id            bigserial PRIMARY KEY,
    server_id     bigint NOT NULL REFERENCES mcp_servers (id) ON DELETE CASCADE,
    name          varchar(128) NOT NULL,
    title         text,
    description   text,
    input_schema  jsonb NOT NULL,
    output_schema jsonb,
    annotations   jsonb,
    category      varchar(50),
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tools_server_id_idx ON tools (server_id);

CREATE TABLE server_metadata (
    id                bigserial PRIMARY KEY,
    server_id         bigint NOT NULL UNIQUE REFERENCES mcp_servers (id) ON DELETE CASCADE,
    author            varchar(200),
    repository_url    varchar(2048),
    documentation_url varchar(2048),
    tags              jsonb
);
