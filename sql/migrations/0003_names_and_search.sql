-- Names that only an eye confuses, text that is found as it is read, and what MCP says of a tool besides our columns.
--
-- What now exists: mcp_servers.name_key, look_key and figure_key (two names are one where any is equal), search_fold
-- and server_metadata.tags_fold (text as it is compared), tools.extra; and the functions and triggers that fill what the
-- code of the release before leaves out. Quick, because readers wait for it: what takes time is in 0004.
--
-- The old rule of names, canonical_name, took for one what nobody confuses (shard-1-11 and shard-11-1, mariax and
-- marlax). Names that are one by the new keys were one by the old rule too, so that no two rows of a database agree
-- now that differed; names that were refused may come. canonical_name, search_text and everything of this file that is
-- for the release before go with the next one. That release finds a server by canonical_name, which a new server does not
-- get where another has it; should that other be deleted while both run, the release before answers 500 to the new one's
-- registration, and this one answers it.
--
-- locks: registry.mcp_servers, registry.server_metadata, registry.tools

ALTER TABLE registry.mcp_servers
    -- Columns that are filled, and not generated ones: to generate a column rewrites the table, and every reader waits.
    ADD COLUMN name_key varchar(100) COLLATE "C",
    ADD COLUMN look_key varchar(100) COLLATE "C",
    ADD COLUMN figure_key varchar(100) COLLATE "C",
    ADD COLUMN search_fold text,
    -- Validated by 0004.
    ADD CONSTRAINT mcp_servers_derived_not_null
        CHECK (name_key IS NOT NULL AND look_key IS NOT NULL AND figure_key IS NOT NULL
               AND search_fold IS NOT NULL) NOT VALID,
    ALTER COLUMN canonical_name DROP NOT NULL;

ALTER TABLE registry.server_metadata ADD COLUMN tags_fold text[];

-- What MCP says of a tool, and will say, besides our columns (_meta, icons, execution), as it was received.
ALTER TABLE registry.tools ADD COLUMN extra json;

-- What nobody sees of a text, as catalogue/folding.py lists it.
CREATE FUNCTION registry.seen(given text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN regexp_replace(given,
        '[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164'
        '\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]',
        '', 'g');

-- Text as people compare it, as catalogue/folding.py makes it: compatible forms are one (NFKC), and so are the cases of a
-- letter. Full case folding is of Postgres 18; an older one does without the foldings of rare letters to several.
DO $$
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        EXECUTE $sql$
            CREATE FUNCTION registry.fold(given text) RETURNS text
                LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
                RETURN normalize(casefold(normalize(registry.seen(given), NFKC) COLLATE pg_catalog.pg_unicode_fast), NFKC)
        $sql$;
    ELSE
        EXECUTE $sql$
            CREATE FUNCTION registry.fold(given text) RETURNS text
                LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
                RETURN normalize(replace(replace(lower(normalize(registry.seen(given), NFKC)), 'ς', 'σ'), 'ß', 'ss'), NFKC)
        $sql$;
    END IF;
END
$$;

-- A name without what does not count, as catalogue/names.py reads it; `number` is the class of characters between which
-- a separator counts.
CREATE FUNCTION registry.spelling(name text, number text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN translate(
        CASE WHEN name LIKE '%/%'
             THEN btrim(regexp_replace(split_part(lower(name COLLATE "C"), '/', 1), '[._-]+', '-', 'g'), '-') || '/'
             ELSE '' END
        || regexp_replace(regexp_replace(split_part(lower(name COLLATE "C"), '/', -1), '[._-]+', '-', 'g'),
                          '(?<!' || number || ')-|-(?!' || number || ')', '', 'g'),
        '01', 'ol');

CREATE FUNCTION registry.name_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN registry.spelling(name, '[0-9]');

CREATE FUNCTION registry.look_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN registry.spelling(translate(name, 'I', 'l'), '[0-9]');

CREATE FUNCTION registry.figure_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN registry.spelling(translate(name, 'I', 'l'), '[0-9lo]');

-- A tag of more than 64 characters, which the release before took, cannot be asked for, and might not fit into an index.
CREATE FUNCTION registry.fold_tags(tags jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg(registry.fold(regexp_replace(tag, '^\s+|\s+$', '', 'g')))
              FROM jsonb_array_elements_text(tags) AS tag
             WHERE char_length(tag) <= 64);

CREATE FUNCTION registry.derive_server() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    NEW.name_key := registry.name_key(NEW.name);
    NEW.look_key := registry.look_key(NEW.name);
    NEW.figure_key := registry.figure_key(NEW.name);
    -- The separator is a control character that no search may contain.
    NEW.search_fold := registry.fold(NEW.name || E'\x1f' || NEW.display_name);
    RETURN NEW;
END
$$;

-- As in 0001, without SET search_path, which is for functions that run as their owner and took 27 us of each registration
-- (2026-11-30): every name in it has its schema.
CREATE OR REPLACE FUNCTION registry.count_server() RETURNS trigger
    LANGUAGE plpgsql
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

CREATE FUNCTION registry.derive_metadata() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    NEW.tags_fold := registry.fold_tags(NEW.tags);
    RETURN NEW;
END
$$;

CREATE TRIGGER derive_new BEFORE INSERT ON registry.mcp_servers
    FOR EACH ROW WHEN (NEW.name_key IS NULL)
    EXECUTE FUNCTION registry.derive_server();
-- A row that 0004 has not reached yet is filled by whoever changes it first.
CREATE TRIGGER derive_changed BEFORE UPDATE ON registry.mcp_servers
    FOR EACH ROW WHEN (NEW.name_key IS NULL
                       OR (NEW.display_name <> OLD.display_name AND NEW.search_fold = OLD.search_fold))
    EXECUTE FUNCTION registry.derive_server();
CREATE TRIGGER derive_new BEFORE INSERT ON registry.server_metadata
    FOR EACH ROW WHEN (NEW.tags IS NOT NULL AND NEW.tags_fold IS NULL)
    EXECUTE FUNCTION registry.derive_metadata();
CREATE TRIGGER derive_changed BEFORE UPDATE ON registry.server_metadata
    FOR EACH ROW WHEN (NEW.tags IS DISTINCT FROM OLD.tags AND NEW.tags_fold IS NOT DISTINCT FROM OLD.tags_fold)
    EXECUTE FUNCTION registry.derive_metadata();
