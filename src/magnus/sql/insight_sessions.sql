-- Client sessions and who blocks them; background processes only where they block somebody. $1: our own too.
SELECT a.pid, a.datname::text AS database, a.usename::text AS role, a.application_name AS application,
       a.client_addr::text AS client, a.state, a.wait_event_type, a.wait_event, a.backend_type, a.query_id,
       a.query, a.backend_xmin::text AS xmin,
       extract(epoch FROM clock_timestamp() - a.backend_start)::float8 AS session_seconds,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds,
       extract(epoch FROM clock_timestamp() - a.query_start)::float8 AS query_seconds,
       extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS state_seconds,
       CASE WHEN a.wait_event_type = 'Lock' THEN pg_catalog.pg_blocking_pids(a.pid) ELSE '{}' END AS blocked_by,
       (SELECT l.mode || ' on ' || coalesce(l.relation::regclass::text, l.locktype)
          FROM pg_catalog.pg_locks l WHERE l.pid = a.pid AND NOT l.granted LIMIT 1) AS waits_for
  FROM pg_catalog.pg_stat_activity a
 WHERE (a.pid <> pg_catalog.pg_backend_pid() OR $1) AND (a.backend_type = 'client backend' OR a.wait_event_type = 'Lock')
 ORDER BY a.backend_start, a.pid
