-- The endpoints of the servers that were there before 0010, with what their last check found. Readers go on meanwhile; writers
-- wait, as in 0004.

-- Before any row, as in 0007.
LOCK TABLE registry.mcp_servers IN SHARE ROW EXCLUSIVE MODE;

-- Whether an address was set by a person nobody knows: each has a lease of a day, as in 0010.
INSERT INTO registry.endpoints
       (server_id, url, health_url, declared, created_at, announced_at, lease_until, moved_at, body_digest, introduce_at)
SELECT id, endpoint_url, health_url, false, created_at, updated_at, now() + interval '1 day', moved_at, body_digest,
       -- Spread over ten minutes: an introduction of everybody at once would be a crowd.
       now() + interval '10 minutes' * (id % 600 / 600.0)
  FROM registry.mcp_servers
 WHERE endpoint_id IS NULL
    ON CONFLICT (server_id, url) DO NOTHING;

UPDATE registry.mcp_servers AS s
   SET endpoint_id = e.id
  FROM registry.endpoints AS e
 WHERE e.server_id = s.id
   AND s.endpoint_id IS NULL;

INSERT INTO registry.endpoint_health
       (endpoint_id, verdict, response_time_ms, status_code, error_message, checked_at, up_at, since)
SELECT e.id, h.verdict, h.response_time_ms, h.status_code, h.error_message, h.checked_at, h.up_at, h.checked_at
  FROM registry.server_health AS h
  JOIN registry.endpoints AS e USING (server_id)
    ON CONFLICT (endpoint_id) DO NOTHING;
