-- Versions of what services keep in their caches: a trigger raises its tag's and tells it on channel magnus_cache, in
-- the transaction of the change. Safe to run again. PostgreSQL 15 to 18.
-- Writers of one table wait for each other's commit at its row here, and all commits that notify go one after the
-- other: right for tables that seldom change, wrong for those that are written all the time.
SELECT pg_advisory_xact_lock(hashtext('magnus.cache'));

CREATE TABLE IF NOT EXISTS magnus_cache (
    tag text PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE magnus_cache IS 'What cached answers depend on, and how often it has changed; written by triggers.';
GRANT SELECT ON magnus_cache TO PUBLIC;

-- The owner's rights: whoever may write the table need not be allowed to write here.
CREATE OR REPLACE FUNCTION magnus_cache_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $function$
DECLARE
    raised bigint;
BEGIN
    INSERT INTO magnus_cache AS known (tag, version) VALUES (TG_ARGV[0], 1)
        ON CONFLICT (tag) DO UPDATE SET version = known.version + 1
        RETURNING known.version INTO raised;
    PERFORM pg_catalog.pg_notify('magnus_cache', TG_ARGV[0] || ' ' || raised);
    RETURN NULL;
END
$function$;
REVOKE ALL ON FUNCTION magnus_cache_changed() FROM PUBLIC;

DO $path$
BEGIN
    EXECUTE format('ALTER FUNCTION magnus_cache_changed() SET search_path = %I, pg_temp', current_schema());
END
$path$;
