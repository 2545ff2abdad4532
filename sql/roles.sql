-- Who may do what: five roles for five kinds of functions. Applied after every run of the migrations, as a whole, so
-- that this file is all there is to know: what is not granted here is taken away.
--
--   registry_reader   list, detail, history, metrics, health: reads, and cannot write.
--   registry_writer   register, update, delete, transfer: changes the catalogue, and writes down who did.
--   registry_sweeper  health checks and maintenance: of a registration it reads where to ask and what to call it, and
--                     writes the status.
--   registry_porter   identify: reads which token or workload somebody is, and notes that a token was used.
--   registry_keeper   access: teams, tokens and issuers; reads the audit.
--   registry_clerk    ledger, mark, publish: reads what servers offer and what changed, and writes what curators decide, for
--                     which servers there are headers, and up to which change an event bus was told.
--
-- The authorizer and the prober have no role. None has a password: where functions log in by IAM (registry.by_token, which
-- sql/migrate.py sets) the roles have rds_iam, elsewhere a user takes one on (SET ROLE) who is a member.

DO $$
DECLARE
    name   text;
    -- mcp_registry.aws.db sends the same with each connection, but for RDS Proxy, which refuses it; a test compares the two.
    wanted text[] := ARRAY['lock_timeout=2s', 'idle_in_transaction_session_timeout=5s', 'TimeZone=UTC',
                           'random_page_cost=1.1', 'jit=off'];
    one    text;
BEGIN
    FOREACH name IN ARRAY ARRAY['registry_reader', 'registry_writer', 'registry_sweeper', 'registry_porter',
                               'registry_keeper', 'registry_clerk'] LOOP
        -- Roles are the cluster's: another database of it may have made them, or be about to.
        BEGIN
            IF to_regrole(name) IS NULL THEN
                EXECUTE format('CREATE ROLE %I LOGIN', name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
        -- RDS takes a token from whoever has rds_iam, and no password any more, not even from a user who has it through one
        -- of these roles. Every RDS has rds_iam; whose functions log in by a password must not be given it.
        IF current_setting('registry.by_token', true) = 'on' AND NOT pg_has_role(name, 'rds_iam', 'MEMBER') THEN
            EXECUTE format('GRANT rds_iam TO %I', name);
        END IF;
        -- Only what is not so yet: the settings of a role are the cluster's too. Maintenance takes its time.
        BEGIN
            FOREACH one IN ARRAY wanted || CASE name WHEN 'registry_sweeper' THEN 'statement_timeout=48s'
                                                     ELSE 'statement_timeout=3600ms' END LOOP
                CONTINUE WHEN (SELECT one = ANY (rolconfig) FROM pg_roles WHERE rolname = name);
                EXECUTE format('ALTER ROLE %I SET %I = %L', name, split_part(one, '=', 1), split_part(one, '=', 2));
            END LOOP;
        EXCEPTION WHEN insufficient_privilege THEN
            NULL; -- somebody else's roles
        END;
    END LOOP;
END
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA registry, metrics
  FROM registry_reader, registry_writer, registry_sweeper, registry_porter, registry_keeper,
       registry_clerk;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA registry, metrics
  FROM registry_reader, registry_writer, registry_sweeper, registry_porter, registry_keeper,
       registry_clerk;
-- What everybody may call (registry.fold, name_key, rfc3339 and their like, which triggers and indexes use) stays as it is:
-- that is granted to PUBLIC, by the migrations.
REVOKE ALL ON ALL ROUTINES IN SCHEMA registry, metrics
  FROM registry_reader, registry_writer, registry_sweeper, registry_porter, registry_keeper,
       registry_clerk;
-- Which of a server's endpoints is the one to use.
GRANT EXECUTE ON FUNCTION registry.use_endpoints(bigint[]) TO registry_writer, registry_sweeper;
-- Runs as its caller, whose rights it needs.
GRANT EXECUTE ON FUNCTION registry.remove_and_hold(bigint, integer), registry.remove_and_hold(bigint, integer, varchar),
                          registry.live_endpoints(bigint)
   TO registry_writer;
GRANT USAGE ON SCHEMA registry, metrics TO registry_reader, registry_writer, registry_sweeper;
GRANT USAGE ON SCHEMA registry TO registry_porter, registry_keeper;
GRANT USAGE ON SCHEMA registry, metrics TO registry_clerk;

GRANT SELECT ON registry.mcp_servers, registry.server_metadata, registry.tools, registry.server_counts,
                registry.server_health, registry.endpoints, registry.endpoint_health, registry.endpoint_verdicts,
                registry.held_names
   TO registry_reader;
GRANT SELECT ON metrics.server_health_metrics, metrics.server_health_hours, metrics.status_transitions,
                metrics.folded_days, metrics.sweeps, metrics.sweep_shards, metrics.sweep_times,
                metrics.endpoint_changes
   TO registry_reader;

GRANT SELECT, INSERT, UPDATE, DELETE ON registry.mcp_servers, registry.server_metadata, registry.tools,
                                        registry.endpoints, registry.held_names
   TO registry_writer;
-- A statement that writes a server and its endpoint takes the endpoint's number first.
GRANT USAGE ON SEQUENCE registry.endpoints_id_seq TO registry_writer;
-- What was found at one health URL says nothing of another.
GRANT SELECT, DELETE ON registry.endpoint_health TO registry_writer;
GRANT INSERT ON metrics.endpoint_changes TO registry_writer;
-- By the triggers that count.
GRANT SELECT, UPDATE ON registry.server_counts TO registry_writer;
-- An operator's change of status is a transition; its answer says when the server was checked last.
GRANT INSERT ON metrics.status_transitions TO registry_writer;
GRANT SELECT ON registry.server_health TO registry_writer;

GRANT SELECT (id, name, endpoint_url, health_url, endpoint_id, status, server_type, moved_at),
      UPDATE (status, updated_at)
   ON registry.mcp_servers
   TO registry_sweeper;
-- What is learnt of an endpoint, and when it is asked next; not who it is. One that retired long ago is deleted.
GRANT SELECT, DELETE, UPDATE (pulse, era, introduced_at, introduction, auth, learnt_at, introduce_at, retired_at)
   ON registry.endpoints
   TO registry_sweeper;
GRANT SELECT, INSERT, UPDATE ON registry.endpoint_health TO registry_sweeper;
GRANT SELECT, INSERT, DELETE, UPDATE (from_verdict, verdict, reason, evidence, occurred_at, more)
   ON metrics.endpoint_changes
   TO registry_sweeper;
GRANT SELECT, UPDATE ON registry.server_counts TO registry_sweeper;
GRANT SELECT, INSERT, UPDATE ON registry.server_health TO registry_sweeper;
-- A row changes where another endpoint of its server is found up in the same sweep.
GRANT SELECT, INSERT, UPDATE ON metrics.server_health_metrics TO registry_sweeper;
GRANT SELECT, INSERT, UPDATE ON metrics.folded_days TO registry_sweeper;
GRANT SELECT, INSERT, UPDATE, DELETE ON metrics.sweeps, metrics.sweep_shards, metrics.server_health_hours
   TO registry_sweeper;
-- What is added up goes with what it was added up of; a trigger adds.
GRANT SELECT, DELETE ON metrics.sweep_times TO registry_sweeper;
GRANT SELECT, INSERT, DELETE ON metrics.status_transitions TO registry_sweeper;
-- They run as their owner: the sweeper makes and drops the days of checks and the months of the audit, and no other table.
GRANT EXECUTE ON FUNCTION metrics.add_days(date, date), metrics.drop_day(date), registry.add_audit_months(date, date),
                          registry.drop_audit_month(date) TO registry_sweeper;

-- Whom a new server belongs to, whom to ask where it is another team's, and what was done.
GRANT SELECT ON registry.teams, registry.team_prefixes TO registry_writer;
-- An entry's number and time are the database's to give.
GRANT INSERT (actor, role, team, action, target, before, after, request_id, address) ON registry.audit
   TO registry_writer, registry_keeper;

GRANT SELECT ON registry.tokens, registry.issuers TO registry_porter;
GRANT UPDATE (last_used_at) ON registry.tokens TO registry_porter;

-- Nobody but the database makes an entry of the audit another one: there is no right to UPDATE or DELETE it.
GRANT SELECT ON registry.audit TO registry_keeper;
-- Up to which entry all are there, of the audit and of the ledger's changes.
GRANT EXECUTE ON FUNCTION registry.settled_entry(regclass, integer) TO registry_keeper, registry_clerk;
GRANT SELECT, INSERT, UPDATE, DELETE ON registry.teams, registry.team_prefixes, registry.issuers TO registry_keeper;
-- Revoked ones go with their team.
GRANT SELECT, INSERT, DELETE, UPDATE (revoked_at) ON registry.tokens TO registry_keeper;
-- Whether a team still owns something.
GRANT SELECT (id, name, owner) ON registry.mcp_servers TO registry_keeper;
GRANT SELECT (name, owner, held_until) ON registry.held_names TO registry_keeper;

-- What servers offer. The detail tells of it.
GRANT SELECT ON registry.documents, registry.snapshots, registry.ledger, registry.approvals, registry.changes
   TO registry_reader, registry_clerk;
GRANT SELECT ON registry.mcp_servers, registry.server_metadata, registry.tools, registry.endpoints,
                registry.endpoint_health, registry.teams
   TO registry_clerk;
-- Whether curators look after a server that its team removes.
GRANT SELECT ON registry.ledger, registry.approvals TO registry_writer;
-- What is decided about it, and that an endpoint is to be looked at now.
GRANT INSERT ON registry.approvals TO registry_clerk;
GRANT INSERT, UPDATE ON registry.ledger TO registry_clerk;
GRANT INSERT (server_id, name, owner, source, kind, subject, grade, before, after, reasons) ON registry.changes
   TO registry_clerk, registry_sweeper;
GRANT UPDATE (introduce_at, visited_at, seen_digest) ON registry.endpoints TO registry_clerk;
GRANT INSERT (actor, role, team, action, target, before, after, request_id, address) ON registry.audit TO registry_clerk;

-- Who writes what introductions found writes the ledger, of what is declared too.
GRANT SELECT (owner, version, offer_digest, ledger_digest, tools_count, updated_at), UPDATE (ledger_digest)
   ON registry.mcp_servers
   TO registry_sweeper;
GRANT SELECT ON registry.tools, registry.approvals, registry.changes TO registry_sweeper;
GRANT SELECT, INSERT ON registry.documents TO registry_sweeper;
GRANT SELECT, INSERT, DELETE, UPDATE (last_seen) ON registry.snapshots TO registry_sweeper;
GRANT USAGE ON SEQUENCE registry.snapshots_id_seq TO registry_sweeper;
GRANT SELECT, INSERT, UPDATE ON registry.ledger TO registry_sweeper;
GRANT UPDATE (seen_digest) ON registry.endpoints TO registry_sweeper;
-- What is too old. Documents go by a function that runs as its owner, and takes none that a snapshot has.
GRANT DELETE ON registry.changes TO registry_sweeper;
GRANT EXECUTE ON FUNCTION registry.drop_documents(integer, integer) TO registry_sweeper;

-- Up to which change an event bus was told.
GRANT SELECT, INSERT, UPDATE ON registry.published TO registry_clerk;

-- Which secrets hold headers for a server (MarkFunction), and which of them an introduction may read.
GRANT SELECT, INSERT, DELETE, UPDATE (given_at, ended_at) ON registry.probe_headers TO registry_clerk;
GRANT SELECT ON registry.probe_headers TO registry_sweeper;
