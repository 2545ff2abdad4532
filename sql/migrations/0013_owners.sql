-- The owner of each server: a team that exists, and an index for the servers of a team. Apart from 0012, because readers wait for
-- that and not for this; writers wait for both.

ALTER TABLE registry.mcp_servers
    ADD FOREIGN KEY (owner) REFERENCES registry.teams (name);
CREATE INDEX mcp_servers_owner_idx ON registry.mcp_servers (owner, id);
ALTER TABLE registry.held_names
    ADD FOREIGN KEY (owner) REFERENCES registry.teams (name) ON DELETE CASCADE;
