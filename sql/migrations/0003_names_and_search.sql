-- Names that only an eye confuses, text that is found as it is read, and what MCP says of a tool besides our columns.
--
-- What now exists: registry.fold (text as it is compared), registry.search_pattern and registry.fold_tags over it;
-- registry.name_key and registry.look_key (when two names are one); the columns mcp_servers.search_fold, filled by
-- triggers, and tools.extra. Quick, because readers wait for it: what takes time is in 0004.
--
-- The old rule of names, canonical_name, took for one what nobody confuses (shard-1-11 and shard-11-1, mariax and
-- marlax). Names that are one by the new keys were one by the old rule too, so that no two rows of a database agree
-- now that differed; names that were refused may come. canonical_name and search_text stay for the code that runs while
-- this one is deployed, and go with the next release.
--
-- locks: registry.mcp_servers, registry.tools

-- Text as people compare it: compatible forms are one (NFKC), and so are the cases of a letter. Full case folding is of
-- Postgres 18; an older one does without the foldings of rare letters to several.
DO $$
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        EXECUTE $sql$
            CREATE FUNCTION registry.fold(given text) RETURNS text
                LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
                RETURN normalize(casefold(normalize(given, NFKC) COLLATE pg_catalog.pg_unicode_fast), NFKC)
        $sql$;
    ELSE
        EXECUTE $sql$
            CREATE FUNCTION registry.fold(given text) RETURNS text
                LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
                RETURN normalize(replace(replace(lower(normalize(given, NFKC)), 'ς', 'σ'), 'ß', 'ss'), NFKC)
        $sql$;
    END IF;
END
$$;

-- A LIKE pattern for a word, wherever it stands. Folded first, because a full-width percent sign becomes a plain one.
CREATE FUNCTION registry.search_pattern(word text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN '%' || replace(replace(replace(registry.fold(word), '\', '\\'), '%', '\%'), '_', '\_') || '%';

-- The tags of a server, folded, for the index that finds one of them.
CREATE FUNCTION registry.fold_tags(tags jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg(registry.fold(tag)) FROM jsonb_array_elements_text(tags) AS tag);

-- A name without what does not count: case, separators, 0 for o and 1 for l. In a namespace (before the slash) separators
-- count, but not of which kind they are; behind it those between two characters of the class `number` do.
CREATE FUNCTION registry.spelling(name text, number text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN translate(
        CASE WHEN name LIKE '%/%'
             THEN btrim(regexp_replace(split_part(lower(name COLLATE "C"), '/', 1), '[._-]+', '-', 'g'), '-') || '/'
             ELSE '' END
        || regexp_replace(regexp_replace(split_part(lower(name COLLATE "C"), '/', -1), '[._-]+', '-', 'g'),
                          '(?<!' || number || ')-|-(?!' || number || ')', '', 'g'),
        '01', 'ol');

-- Two names are one where either of these is equal. By the first, case does not count: WIKI is wiki. By the second, a
-- capital I is the l that it looks like: heIlo is hello. One key cannot say both, for mariax and marlax differ.
-- Between digits a separator counts: v1.10 is not v11.0. To the eye, l and o may be digits: vl.lo is v1.10.
CREATE FUNCTION registry.name_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN registry.spelling(name, '[0-9]');

CREATE FUNCTION registry.look_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN registry.spelling(translate(name, 'I', 'l'), '[0-9lo]');

ALTER TABLE registry.mcp_servers
    -- Name and display name as a search reads them. Filled by the triggers below, and not generated: a generated column
    -- rewrites the table, and every reader waits for that. The constraint is validated by 0004.
    ADD COLUMN search_fold text,
    ADD CONSTRAINT mcp_servers_search_fold_not_null CHECK (search_fold IS NOT NULL) NOT VALID,
    ALTER COLUMN canonical_name DROP NOT NULL;

-- What MCP says of a tool, and will say, besides our columns (_meta, icons, execution), as it was received.
ALTER TABLE registry.tools ADD COLUMN extra json;

CREATE FUNCTION registry.derive_server() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = ''
AS $$
BEGIN
    -- The separator is a control character that no search may contain.
    NEW.search_fold := registry.fold(NEW.name || E'\x1f' || NEW.display_name);
    IF TG_OP = 'INSERT' AND NEW.canonical_name IS NULL THEN
        -- What the code of the release before finds the server by, unless a name has it that differs by the new keys.
        NEW.canonical_name := translate(lower(NEW.name COLLATE "C"), '01i._-', 'oll');
        IF EXISTS (SELECT FROM registry.mcp_servers AS s WHERE s.canonical_name = NEW.canonical_name) THEN
            NEW.canonical_name := NULL;
        END IF;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER derive_new BEFORE INSERT ON registry.mcp_servers
    FOR EACH ROW EXECUTE FUNCTION registry.derive_server();
-- A row that 0004 has not reached yet is filled by whoever changes it first.
CREATE TRIGGER derive_changed BEFORE UPDATE ON registry.mcp_servers
    FOR EACH ROW WHEN (NEW.search_fold IS NULL OR NEW.display_name <> OLD.display_name OR NEW.name <> OLD.name)
    EXECUTE FUNCTION registry.derive_server();
