-- The bytes of the servers that were there before 0006, near enough: to the byte they count from when they next change.
-- Readers go on meanwhile; writers wait, as in 0004.

-- Before any row: whoever held a row of server_counts and waited for one of these would else wait for us, and we for them.
LOCK TABLE registry.mcp_servers IN SHARE ROW EXCLUSIVE MODE;

UPDATE registry.mcp_servers AS s
   SET bytes = octet_length(COALESCE(s.description, '')) + COALESCE(tool.bytes, 0)
  FROM registry.mcp_servers AS one
  LEFT JOIN (SELECT server_id, sum(octet_length(row_to_json(t)::text))::integer AS bytes
               FROM registry.tools AS t
              GROUP BY server_id) AS tool ON tool.server_id = one.id
 WHERE s.id = one.id
   AND s.bytes = 0;
