-- Reading the audit without missing an entry, and keeping it by the month.
--
-- What now exists: registry.settled_entry, up to which number no entry can come any more, and the trigger by which it knows,
-- for the audit and for whatever is read by numbers later; the months of the audit, which maintenance makes ahead and drops
-- when they are too old. No index: none is asked for that 0012 has not.

-- Entries get their numbers before they are committed: one with a lower number may come after one with a higher, and the
-- order of transactions is another one. So whoever adds entries holds a lock until its transaction ends, whose key is
-- the last number that was given before: its own are higher. Fires before the statement's first row, and so before its
-- first number. Its arguments: the sequence of the numbers, and the word of 16 bits by which the locks of this table are
-- told from others. What is left of 64 bits has room for numbers up to 2 to the 48th.
CREATE FUNCTION registry.begin_entry() RETURNS trigger
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(
        (TG_ARGV[1]::bigint << 48) + COALESCE(pg_catalog.pg_sequence_last_value(TG_ARGV[0]::pg_catalog.regclass), 0));
    RETURN NULL;
END
$$;
-- 16725 is 'AU'.
CREATE TRIGGER audit_begins BEFORE INSERT ON registry.audit
    FOR EACH STATEMENT EXECUTE FUNCTION registry.begin_entry('registry.audit_id_seq', '16725');

-- The number up to which every entry of a table is there that ever will be, for a statement that begins after this one.
-- `word`: that of the table's trigger. The last number is read first: who has a number up to it and is not done yet has its
-- lock by then, and that of an INSERT on the table before it. Anybody may take an advisory lock: alone it counts for nothing.
CREATE FUNCTION registry.settled_entry(entries regclass, word integer) RETURNS bigint
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = ''
AS $$
DECLARE
    given     bigint := COALESCE(pg_catalog.pg_sequence_last_value(
                            pg_catalog.pg_get_serial_sequence(entries::text, 'id')::pg_catalog.regclass), 0);
    under_way bigint;
BEGIN
    WITH locks AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks)
    SELECT min(((classid::bigint & 65535) << 32) + objid::bigint)
      INTO under_way
      FROM locks
     WHERE locktype = 'advisory'
       AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
       AND objsubid = 1
       AND classid::bigint >> 16 = word
       AND virtualtransaction IN (SELECT virtualtransaction
                                    FROM locks
                                   WHERE locktype = 'relation'
                                     AND relation = entries
                                     AND mode = 'RowExclusiveLock'
                                     AND granted);
    RETURN LEAST(given, under_way);
END
$$;

-- One table a month, so that a month is dropped and not deleted. Made beside the parent and attached, which lets readers and
-- writers go on. A month of which entries are in audit_rest already, because nobody
-- had made it, stays there: so does the one of the first deployment.
CREATE FUNCTION registry.add_audit_months(first date, last date) RETURNS integer
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = ''
AS $$
DECLARE
    month  date;
    begins timestamptz;
    ends   timestamptz;
    name   text;
    added  integer := 0;
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('registry.add_audit_months'));
    FOR month IN SELECT pg_catalog.generate_series(pg_catalog.date_trunc('month', first::timestamp), last,
                                                   interval '1 month')::date LOOP
        name := 'audit_' || pg_catalog.to_char(month, 'YYYYMM');
        begins := month::timestamp AT TIME ZONE 'UTC';
        ends := (month + interval '1 month') AT TIME ZONE 'UTC';
        CONTINUE WHEN pg_catalog.to_regclass('registry.' || name) IS NOT NULL;
        -- Whoever adds an entry has locked this first: nobody is between choosing the rest for it and writing it there.
        LOCK TABLE registry.audit IN SHARE ROW EXCLUSIVE MODE;
        CONTINUE WHEN EXISTS (SELECT FROM registry.audit_rest WHERE occurred_at >= begins AND occurred_at < ends);
        EXECUTE pg_catalog.format('CREATE TABLE registry.%I (LIKE registry.audit INCLUDING ALL EXCLUDING IDENTITY)', name);
        EXECUTE pg_catalog.format('CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON registry.%I
                                       FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change()', name);
        EXECUTE pg_catalog.format('ALTER TABLE registry.audit ATTACH PARTITION registry.%I FOR VALUES FROM (%L) TO (%L)',
                                  name, begins, ends);
        added := added + 1;
    END LOOP;
    RETURN added;
END
$$;

-- Drops the oldest month where all of it lies before `until`, and returns it. One a call, so that the lock on the parent is
-- short. Whatever is asked for, 31 days stay: who may call this cannot do away with what was just written down.
CREATE FUNCTION registry.drop_audit_month(until date) RETURNS date
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = ''
AS $$
DECLARE
    month date;
    bound date := LEAST(until, (pg_catalog.now() AT TIME ZONE 'UTC')::date - 31);
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('registry.add_audit_months'));
    SELECT min(pg_catalog.to_date(pg_catalog.right(child.relname, 6), 'YYYYMM'))
      INTO month
      FROM pg_catalog.pg_inherits AS i
      JOIN pg_catalog.pg_class AS child ON child.oid = i.inhrelid
     WHERE i.inhparent = 'registry.audit'::pg_catalog.regclass
       AND child.relname ~ '^audit_[0-9]{6}$';
    IF month + interval '1 month' <= bound THEN
        EXECUTE pg_catalog.format('DROP TABLE registry.%I', 'audit_' || pg_catalog.to_char(month, 'YYYYMM'));
        RETURN month;
    END IF;
    -- What was in no month goes when the last of it is too old: its rows cannot be deleted.
    SELECT max(occurred_at AT TIME ZONE 'UTC')::date INTO month FROM registry.audit_rest;
    IF month < bound THEN
        -- An entry that was not committed yet may be a young one: look again when nobody adds any. The parent with all its
        -- tables, because whoever adds an entry locks the parent first.
        LOCK TABLE registry.audit IN ACCESS EXCLUSIVE MODE;
        SELECT max(occurred_at AT TIME ZONE 'UTC')::date INTO month FROM registry.audit_rest;
    END IF;
    IF month < bound THEN
        DROP TABLE registry.audit_rest;
        CREATE TABLE registry.audit_rest PARTITION OF registry.audit DEFAULT;
        CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON registry.audit_rest
            FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change();
        RETURN month;
    END IF;
    RETURN NULL;
END
$$;

-- They run as their owner: not for everybody.
REVOKE EXECUTE ON FUNCTION registry.begin_entry(), registry.settled_entry(regclass, integer),
                           registry.add_audit_months(date, date), registry.drop_audit_month(date)
  FROM PUBLIC;
