-- Who waits for a lock, since when, and for whom.
SELECT l.pid, l.locktype AS kind, l.mode, n.nspname::text AS schema, c.relname::text AS name,
       extract(epoch FROM clock_timestamp() - l.waitstart)::float8 AS wait_s,
       pg_blocking_pids(l.pid) AS blockers
  FROM pg_locks l
  LEFT JOIN pg_class c ON c.oid = l.relation
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT l.granted AND l.pid <> pg_backend_pid()
 ORDER BY l.waitstart
 LIMIT 50
