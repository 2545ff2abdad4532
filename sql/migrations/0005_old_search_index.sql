-- The index of the search of the release before goes: two of its kind would cost each registration twice. While both
-- releases run, the old one searches without it, which is slow (80 ms at 100,000 servers, 2026-11-30) and right.
--
-- locks: registry.mcp_servers

DROP INDEX registry.mcp_servers_search_idx;
