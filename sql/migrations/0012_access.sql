-- Who may call, whose a server is, and who did what.
--
-- What now exists: registry.teams, team_prefixes, tokens, issuers and audit, and the owner of each server and of each name that is
-- held. Everything that is there belongs to the team `default`, which is the bootstrap administrator's; so it does where the release
-- before registers, while it still runs. Quick, because readers wait for it: index and foreign key of the owner are in 0013.
--
-- locks: registry.mcp_servers, registry.held_names

-- Each may do what those before it may.
CREATE TYPE registry.role AS ENUM ('reader', 'publisher', 'curator', 'admin');

CREATE TABLE registry.teams (
    -- Never changes, and so is what others refer to it by.
    name        varchar(63) PRIMARY KEY CHECK (name ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    -- Whom to ask: an address, a channel, a page. Told to whoever is refused.
    contact     varchar(200),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO registry.teams (name) VALUES ('default');

-- What is before the slash of a name: what reads alike is alike, and a separator within it is one, as in registry.name_key.
CREATE FUNCTION registry.namespace_key(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN translate(ltrim(regexp_replace(split_part(lower(name COLLATE "C"), '/', 1), '[._-]+', '-', 'g'), '-'), '01', 'ol');

-- The beginnings of names that are a team's alone. A name is within one where its keys begin with the prefix's: so whatever the
-- registry takes for a name within it is within it as well, however it is spelled (catalogue/servers.py has the rule).
CREATE TABLE registry.team_prefixes (
    prefix     varchar(100) PRIMARY KEY CHECK (prefix ~ '^[a-z0-9][a-z0-9._-]*([._-]|/([a-z0-9][a-z0-9._-]*[._-])?)$'),
    -- Two prefixes that read alike are one.
    key        text GENERATED ALWAYS AS (registry.name_key(prefix)) STORED UNIQUE,
    figure_key text GENERATED ALWAYS AS (registry.figure_key(prefix)) STORED,
    -- Of a prefix without a slash, for names with one: what their namespace has to begin with.
    namespace  text GENERATED ALWAYS AS (CASE WHEN strpos(prefix, '/') = 0 THEN registry.namespace_key(prefix) END) STORED,
    -- Whether a digit that follows would make another number of its end: team-1- has nothing to do with team-12.
    numbered   boolean GENERATED ALWAYS AS (prefix ~ '[0-9][._-]+$') STORED,
    team       varchar(63) NOT NULL REFERENCES registry.teams (name) ON DELETE CASCADE
);
CREATE INDEX team_prefixes_team_idx ON registry.team_prefixes (team);

-- Credentials that somebody was given, by the digest of their text, which is nowhere.
CREATE TABLE registry.tokens (
    -- As it stands in the token itself.
    id            varchar(16) PRIMARY KEY,
    -- SHA-256 of the whole token.
    digest        bytea NOT NULL CHECK (octet_length(digest) = 32),
    -- What or who it is for.
    name          varchar(100) NOT NULL,
    team          varchar(63) NOT NULL REFERENCES registry.teams (name),
    role          registry.role NOT NULL,
    created_by    varchar(200) NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    -- To some minutes.
    last_used_at  timestamptz,
    revoked_at    timestamptz
);
CREATE INDEX tokens_team_idx ON registry.tokens (team);

-- Who is let in by a token that somebody else has signed (OpenID Connect): what it has to say, and who that is.
CREATE TABLE registry.issuers (
    id          varchar(63) PRIMARY KEY CHECK (id ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    -- The claims iss and aud, exactly.
    issuer      varchar(500) NOT NULL,
    audience    varchar(500) NOT NULL,
    -- Further claims, text to text; a star stands for any characters but a slash or a colon.
    claims      jsonb NOT NULL CHECK (jsonb_typeof(claims) = 'object' AND claims <> '{}'),
    team        varchar(63) NOT NULL REFERENCES registry.teams (name),
    role        registry.role NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX issuers_issuer_idx ON registry.issuers (issuer);
CREATE INDEX issuers_team_idx ON registry.issuers (team);

ALTER TABLE registry.mcp_servers
    ADD COLUMN owner varchar(63) NOT NULL DEFAULT 'default';
ALTER TABLE registry.held_names
    ADD COLUMN owner varchar(63) NOT NULL DEFAULT 'default';

-- Every change that somebody asked for, written by the statement that makes it. Never changed, and dropped by the month.
CREATE TABLE registry.audit (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    occurred_at  timestamptz NOT NULL DEFAULT now(),
    -- Who did it, as registry.caller tells it, in which role and for which team.
    actor        varchar(600) NOT NULL,
    role         registry.role NOT NULL,
    team         varchar(63) NOT NULL,
    -- What was done (server.registered), and to which server, team, token or issuer (server:payments/refunds).
    action       varchar(40) NOT NULL,
    target       varchar(200) NOT NULL,
    -- The fields that changed, as they were and as they are; digests in place of contents.
    before       jsonb,
    after        jsonb,
    request_id   varchar(100) NOT NULL,
    address      varchar(45) NOT NULL,
    PRIMARY KEY (id, occurred_at)
)
PARTITION BY RANGE (occurred_at);
CREATE INDEX audit_actor_idx ON registry.audit (actor, id);
CREATE INDEX audit_target_idx ON registry.audit (target, id);
-- Where nobody has made the month, nothing is lost.
CREATE TABLE registry.audit_rest PARTITION OF registry.audit DEFAULT;

-- Whatever rights somebody has: what was written down stays as it is.
CREATE FUNCTION registry.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = ''
AS $$
BEGIN
    RAISE EXCEPTION 'registry.audit is only ever added to' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE ON registry.audit
    FOR EACH ROW EXECUTE FUNCTION registry.refuse_change();
CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON registry.audit
    FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change();
CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON registry.audit_rest
    FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change();

-- Of what an entry tells, the fields that another has otherwise. Null where there are none.
CREATE FUNCTION registry.changed(told jsonb, other jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT jsonb_object_agg(key, value)
              FROM jsonb_each(told)
             WHERE NULLIF(value, 'null') IS DISTINCT FROM NULLIF(other -> key, 'null'));

-- Removes a server, where it is of this team (null: of any), and keeps its name from being registered for so many seconds; the
-- row that it was. As registry.remove_and_hold of 0010, which says why there is a lock.
CREATE FUNCTION registry.remove_and_hold(given bigint, seconds integer, team varchar) RETURNS SETOF registry.mcp_servers
    LANGUAGE plpgsql
    SET search_path = ''
AS $$
DECLARE
    held registry.mcp_servers;
BEGIN
    PERFORM FROM registry.mcp_servers WHERE id = given AND (team IS NULL OR owner = team);
    IF NOT FOUND THEN -- nobody waits for a server that there is not
        RETURN;
    END IF;
    LOCK TABLE registry.mcp_servers IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM registry.mcp_servers WHERE id = given AND (team IS NULL OR owner = team) RETURNING * INTO held;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM registry.held_names WHERE held_until < now();
    INSERT INTO registry.held_names (name_key, look_key, figure_key, name, held_until, owner)
    VALUES (held.name_key, held.look_key, held.figure_key, held.name, now() + make_interval(secs => seconds), held.owner)
        ON CONFLICT (name_key) DO UPDATE
       SET look_key = excluded.look_key,
           figure_key = excluded.figure_key,
           name = excluded.name,
           held_until = excluded.held_until,
           owner = excluded.owner;
    RETURN NEXT held;
END
$$;
REVOKE EXECUTE ON FUNCTION registry.remove_and_hold(bigint, integer, varchar) FROM PUBLIC;

-- As in 0010, for the release before: whoever it removes the server of, the name is held for its team.
CREATE OR REPLACE FUNCTION registry.remove_and_hold(given bigint, seconds integer) RETURNS boolean
    LANGUAGE sql
    RETURN EXISTS (SELECT FROM registry.remove_and_hold(given, seconds, NULL));
