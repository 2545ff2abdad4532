-- The rows that were there before 0003, and the indexes over its columns. Readers go on meanwhile. Writers wait from the
-- first line to the last, and where that is longer than they may wait they are answered 503 and come again: 23 s for
-- 100,000 servers on two cores that were busy with other work (2026-11-30).
--
-- No two rows can have one key here: see 0003.

-- Before any row, and stronger than the building of an index needs it: whoever held a row and waited for another would
-- else stand in the way of the index, and this in theirs.
LOCK TABLE registry.mcp_servers, registry.server_metadata IN SHARE ROW EXCLUSIVE MODE;

UPDATE registry.mcp_servers
   SET name_key = registry.name_key(name),
       look_key = registry.look_key(name),
       figure_key = registry.figure_key(name),
       search_fold = registry.fold(name || E'\x1f' || display_name)
 WHERE name_key IS NULL;

UPDATE registry.server_metadata
   SET tags_fold = registry.fold_tags(tags)
 WHERE tags_fold IS NULL
   AND tags IS NOT NULL;

ALTER TABLE registry.mcp_servers VALIDATE CONSTRAINT mcp_servers_derived_not_null;

-- Two names that are one: the second is not taken. Also what a server is looked up by.
CREATE UNIQUE INDEX mcp_servers_name_key_idx ON registry.mcp_servers (name_key);
CREATE UNIQUE INDEX mcp_servers_look_key_idx ON registry.mcp_servers (look_key);
CREATE UNIQUE INDEX mcp_servers_figure_key_idx ON registry.mcp_servers (figure_key);
-- Search: each word is a substring of name or display name. Only a trigram index serves LIKE '%...%'.
SET LOCAL search_path = registry, public;
CREATE INDEX mcp_servers_search_fold_idx ON registry.mcp_servers USING gin (search_fold gin_trgm_ops);
-- A list narrowed to one tag.
CREATE INDEX server_metadata_tags_idx ON registry.server_metadata USING gin (tags_fold);
