-- The ledger: what servers offer, as they declare it and as it is observed, since when, and what changed.
--
-- What now exists: registry.documents, snapshots, ledger, approvals and changes; mcp_servers.ledger_digest, the offer that the
-- ledger has of a server, and an index of those of which it has another one; endpoints.seen_digest, what an endpoint offered
-- when it was last asked; registry.probe_headers, for which servers Secrets Manager holds headers; registry.published, up to which
-- change each event bus was told. Nothing is read from old rows here: what is declared comes into the ledger by and by.
--
-- locks: registry.mcp_servers, registry.endpoints, metrics.status_transitions

CREATE TYPE registry.source AS ENUM ('declared', 'observed');
-- From the one that matters least: a change of a higher grade is greater.
CREATE TYPE registry.grade AS ENUM ('notation', 'text', 'compatible', 'breaking', 'alarming');
-- Which changes are handed out before somebody has approved of them: all, those that break nothing, or none.
CREATE TYPE registry.policy AS ENUM ('auto', 'compatible', 'manual');
CREATE TYPE registry.decision AS ENUM ('approve', 'reject');

-- A tool, prompt, resource or template, whole and as it was received, once for all servers and times. `digest` is of all of it;
-- the others are those of catalogue/fingerprint.py, of which what is no tool has but `raw`.
CREATE TABLE registry.documents (
    digest   bytea PRIMARY KEY CHECK (length(digest) = 32),
    raw      bytea NOT NULL CHECK (length(raw) = 32),
    prompt   bytea CHECK (length(prompt) = 32),
    contract bytea CHECK (length(contract) = 32),
    document json NOT NULL
);

-- What a server offered from `first_seen` on, until the next one of its source. One that comes back to what it was has a new row,
-- which shares its documents with the old one.
CREATE TABLE registry.snapshots (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id      bigint NOT NULL REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    source         registry.source NOT NULL,
    -- Of all of it (fingerprint.whole).
    digest         bytea NOT NULL CHECK (length(digest) = 32),
    -- Of what a model reads of it: the tools, the prompts and the instructions. To this an approval is bound.
    prompt         bytea NOT NULL CHECK (length(prompt) = 32),
    -- Of its tools alone, as fingerprint.tools has them; null where they are not known.
    tools_raw      bytea CHECK (length(tools_raw) = 32),
    tools_prompt   bytea CHECK (length(tools_prompt) = 32),
    tools_contract bytea CHECK (length(tools_contract) = 32),
    first_seen     timestamptz NOT NULL,
    -- Null while it is the last one of its source: then it is when the endpoint in use was last introduced.
    last_seen      timestamptz,
    -- As it was registered; of an observed one, as the server said itself.
    version        varchar(255),
    -- server_info, protocol_versions, capabilities, instructions, as they were received.
    about          json NOT NULL,
    -- The digests of the documents in the order of the server; null where a list is not known, because it was not whole.
    tools          bytea[],
    prompts        bytea[],
    resources      bytea[],
    templates      bytea[]
);
-- The one that was there at a time, and the last one.
CREATE INDEX snapshots_server_id_idx ON registry.snapshots (server_id, source, first_seen);
-- Those that may be too old to be kept.
CREATE INDEX snapshots_last_seen_idx ON registry.snapshots (last_seen) WHERE last_seen IS NOT NULL;

-- The documents of a snapshot are there, and stay for as long as it does: what a foreign key would say, if one could be of each
-- element of an array. Their rows are locked until the snapshot is committed. Whoever wrote it reads again and repeats where one
-- has gone meanwhile (40001). Fires at the end of the statement, which may add both.
CREATE FUNCTION registry.hold_documents() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = ''
AS $$
DECLARE
    named bytea[];
    held  integer;
BEGIN
    SELECT array_agg(DISTINCT one.digest) INTO named
      FROM added AS s, unnest(s.tools || s.prompts || s.resources || s.templates) AS one (digest);
    -- In one order, so that two who hold the same never wait for each other.
    SELECT count(*) INTO held
      FROM (SELECT FROM registry.documents WHERE digest = ANY (named) ORDER BY digest FOR KEY SHARE) AS locked;
    IF held < COALESCE(array_length(named, 1), 0) THEN
        RAISE serialization_failure USING MESSAGE = 'a document of the snapshot is not there';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER hold_documents AFTER INSERT ON registry.snapshots
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION registry.hold_documents();

-- Deletes documents that no snapshot has, `most` at once, and returns how many: one sixteenth of them in a call, by the first
-- digit of the digest, so that what is compared stays small. Each query of a function sees what is committed by then. So those
-- that were found are locked first, and looked at a second time: who was about to use one has done so, or waits and finds it
-- gone. Those that somebody holds are left for another day.
CREATE FUNCTION registry.drop_documents(slice integer, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = ''
AS $$
DECLARE
    found bytea[];
    gone  integer;
BEGIN
    SELECT array_agg(digest) INTO found
      FROM (SELECT d.digest
              FROM registry.documents AS d
             WHERE pg_catalog.get_byte(d.digest, 0) >> 4 = slice
               AND d.digest NOT IN (SELECT used.digest
                                      FROM registry.snapshots AS s,
                                           unnest(s.tools || s.prompts || s.resources || s.templates) AS used (digest)
                                     WHERE pg_catalog.get_byte(used.digest, 0) >> 4 = slice)
             LIMIT most
               FOR UPDATE OF d SKIP LOCKED) AS unused;
    IF found IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM registry.documents AS d
     WHERE d.digest = ANY (found)
       AND d.digest NOT IN (SELECT used.digest
                              FROM registry.snapshots AS s,
                                   unnest(s.tools || s.prompts || s.resources || s.templates) AS used (digest)
                             WHERE pg_catalog.get_byte(used.digest, 0) >> 4 = slice);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;
REVOKE EXECUTE ON FUNCTION registry.hold_documents(), registry.drop_documents(integer, integer) FROM PUBLIC;

-- Where each server stands. A row is written when something changes, and not when it was seen again as it was.
CREATE TABLE registry.ledger (
    server_id     bigint PRIMARY KEY REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    -- Counted by each write: who read another one writes nothing.
    revision      integer NOT NULL DEFAULT 1,
    -- The last snapshots. What a server offers is what was observed, and what it declares where nothing was.
    declared_id   bigint,
    observed_id   bigint,
    -- What the last introduction came to: observed, gated, degraded (something keeps it from being observed whole) or
    -- unstable (it is another one at each look). Null before the first.
    state         varchar(20) CHECK (state IN ('observed', 'gated', 'degraded', 'unstable')),
    -- A sentence of ours about it, where it is degraded or unstable, or the headers that were given for it are of no use.
    reason        varchar(300),
    -- How often in a row it was another one than at the look before, and half of that for each time that it was not.
    flux          smallint NOT NULL DEFAULT 0,
    -- Whether the tools that are declared are those that were observed, by their prompt digests. Null where one is missing.
    agrees        boolean,
    -- Null: as the setting of the deployment says.
    policy        registry.policy,
    -- The snapshot that is handed out where changes that break nothing go through, and where none do. Kept whatever the policy
    -- is, so that another one holds at once. Null: none is.
    compatible_id bigint,
    approved_id   bigint,
    changed_at    timestamptz NOT NULL DEFAULT now()
);
-- A list asks of each server whether it has a policy of its own. Few have.
CREATE INDEX ledger_policy_idx ON registry.ledger (server_id) WHERE policy IS NOT NULL;

-- What curators decided; the last one about a digest counts. Who did so stands in the audit as well.
CREATE TABLE registry.approvals (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id   bigint NOT NULL REFERENCES registry.mcp_servers (id) ON DELETE CASCADE,
    -- snapshots.prompt
    digest      bytea NOT NULL CHECK (length(digest) = 32),
    -- The snapshot that was looked at. It is the one to hand out where the server offers this digest again, in whatever
    -- notation.
    snapshot_id bigint NOT NULL,
    decision    registry.decision NOT NULL,
    reason      varchar(500),
    decided_by  varchar(600) NOT NULL,
    decided_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX approvals_server_id_idx ON registry.approvals (server_id, digest, id);

-- The feed. Its rows outlive the servers that they tell of.
CREATE TABLE registry.changes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    server_id   bigint NOT NULL,
    name        varchar(100) NOT NULL,
    owner       varchar(63) NOT NULL,
    -- Null where it is not about what a server offers.
    source      registry.source,
    -- Of an offer: tool, prompt, resource, template, instructions, server_info, protocol_versions, capabilities, or
    -- unstable. Else: registered, removed, status or review.
    kind        varchar(20) NOT NULL,
    -- Which tool or prompt, by its name; which resource or template, by its URI.
    subject     varchar(2048),
    grade       registry.grade,
    -- The fields that differ, as they were and are; null where it was not there, or has gone.
    before      json,
    after       json,
    -- Sentences of ours about the grade.
    reasons     text[] NOT NULL DEFAULT '{}'
);
-- Of one server, and of one filter of the feed: each in the order in which it is read.
CREATE INDEX changes_server_id_idx ON registry.changes (server_id, id);
CREATE INDEX changes_name_idx ON registry.changes (name, id);
CREATE INDEX changes_owner_idx ON registry.changes (owner, id);
CREATE INDEX changes_kind_idx ON registry.changes (kind, id);
-- What somebody should look at is rare.
CREATE INDEX changes_grade_idx ON registry.changes (id) WHERE grade >= 'breaking';
CREATE INDEX changes_occurred_at_idx ON registry.changes USING brin (occurred_at);

-- No reader of the feed misses a change: as with the audit (0014). 17224 is 'CH'.
CREATE TRIGGER changes_begin BEFORE INSERT ON registry.changes
    FOR EACH STATEMENT EXECUTE FUNCTION registry.begin_entry('registry.changes_id_seq', '17224');

-- Up to which change an event bus was told what it is to be told of (ledger/publishing.py), by its name.
CREATE TABLE registry.published (
    bus          varchar(256) PRIMARY KEY,
    through      bigint NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE registry.mcp_servers
    -- The offer_digest of the declared snapshot; of a server that is not in the ledger yet no digest at all.
    ADD COLUMN ledger_digest bytea DEFAULT '';
CREATE INDEX mcp_servers_undeclared_idx ON registry.mcp_servers (id) WHERE offer_digest IS DISTINCT FROM ledger_digest;

ALTER TABLE registry.endpoints
    -- fingerprint.whole of what it offered when it was last introduced; null where it is to be asked for all of it.
    ADD COLUMN seen_digest bytea CHECK (length(seen_digest) = 32);

-- The secrets in which headers are that somebody gave for a server (health/headers.py). A row is there before its secret is, and
-- goes after it: so none is forgotten, of servers that have gone neither. Those in use are what was given last and has not ended.
CREATE TABLE registry.probe_headers (
    -- In the name of the secret.
    secret    uuid PRIMARY KEY,
    server_id bigint NOT NULL,
    -- Of the headers, as they were sent. Their values are in the secret and nowhere else.
    names     text[] NOT NULL,
    begun_at  timestamptz NOT NULL DEFAULT now(),
    -- When the secret was there.
    given_at  timestamptz,
    -- When they were withdrawn, or the server came to another team.
    ended_at  timestamptz
);
CREATE INDEX probe_headers_server_id_idx ON registry.probe_headers (server_id, given_at);

-- What a team gave for its server is nothing for another team.
CREATE FUNCTION registry.end_probe_headers() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    UPDATE registry.probe_headers SET ended_at = now() WHERE server_id = NEW.id AND ended_at IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER end_probe_headers AFTER UPDATE OF owner ON registry.mcp_servers
    FOR EACH ROW WHEN (OLD.owner <> NEW.owner) EXECUTE FUNCTION registry.end_probe_headers();
REVOKE EXECUTE ON FUNCTION registry.end_probe_headers() FROM PUBLIC;

-- A server that has gone, for those who keep a copy of what was there.
CREATE FUNCTION registry.tell_removed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    INSERT INTO registry.changes (server_id, name, owner, kind)
    SELECT id, name, owner, 'removed' FROM gone ORDER BY id;
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_removed AFTER DELETE ON registry.mcp_servers
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION registry.tell_removed();
REVOKE EXECUTE ON FUNCTION registry.tell_removed() FROM PUBLIC;

-- A server that has come up, gone down or been taken out, whoever found or did so.
CREATE FUNCTION registry.tell_status() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    -- Most sweeps find every server as it was.
    IF NOT EXISTS (SELECT FROM added) THEN
        RETURN NULL;
    END IF;
    INSERT INTO registry.changes (server_id, name, owner, kind, before, after, reasons)
    SELECT s.id, s.name, s.owner, 'status', ('{"status":"' || t.from_status || '"}')::json,
           ('{"status":"' || t.to_status || '"}')::json, ARRAY[t.reason]
      FROM added AS t
      JOIN registry.mcp_servers AS s ON s.id = t.server_id
     ORDER BY t.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_status AFTER INSERT ON metrics.status_transitions
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION registry.tell_status();
REVOKE EXECUTE ON FUNCTION registry.tell_status() FROM PUBLIC;
