-- One row: what a person wants to know of a server first. Sees other roles' sessions as far as pg_monitor lets it.
SELECT current_setting('server_version') AS version,
       current_database()::text AS database,
       current_user::text AS role,
       pg_is_in_recovery() AS is_standby,
       pg_postmaster_start_time() AS started_at,
       current_setting('max_connections')::int AS max,
       (SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database) AS transactions,
       extract(epoch FROM clock_timestamp())::float8 AS now,
       count(*) FILTER (WHERE backend_type = 'client backend') AS used,
       count(*) FILTER (WHERE backend_type = 'client backend' AND state = 'active') AS active,
       count(*) FILTER (WHERE backend_type = 'client backend' AND state LIKE 'idle in transaction%') AS idle_in_transaction,
       count(*) FILTER (WHERE wait_event_type = 'Lock') AS blocked
FROM pg_stat_activity
WHERE pid <> pg_backend_pid()
