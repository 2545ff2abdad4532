-- A foreign key looks for the server once for each tool that is written: an eighth of what Postgres spends on a
-- registration of five. Nothing needs it: a tool is only written by the statement that writes its server's row, and so
-- holds that row. What it did when a server is deleted, a trigger does.
--
-- locks: registry.mcp_servers, registry.tools

CREATE FUNCTION registry.delete_tools() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    DELETE FROM registry.tools WHERE server_id = OLD.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER delete_tools
    AFTER DELETE ON registry.mcp_servers
    FOR EACH ROW EXECUTE FUNCTION registry.delete_tools();

ALTER TABLE registry.tools DROP CONSTRAINT tools_server_id_fkey;
