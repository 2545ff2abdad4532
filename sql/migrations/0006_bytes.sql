-- How many bytes of tools and descriptions each server has, and all of them together: what the quota of registrations counts.
--
-- What now exists: mcp_servers.bytes and server_counts.bytes, which the triggers of 0001 keep as they keep the number of
-- servers. Quick, because readers wait for it: the servers that are there count 0 until 0007. The release before, while it
-- still runs, registers servers of 0 bytes; they count from when they next change.
--
-- locks: registry.mcp_servers, registry.server_counts

ALTER TABLE registry.mcp_servers ADD COLUMN bytes integer NOT NULL DEFAULT 0;
ALTER TABLE registry.server_counts ADD COLUMN bytes bigint NOT NULL DEFAULT 0;

CREATE OR REPLACE FUNCTION registry.count_server() RETURNS trigger
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

CREATE OR REPLACE FUNCTION registry.count_changed_servers() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = ''
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
