-- Who holds the server's connections, one row for all sessions that look alike. Whose session it is and what it calls
-- itself every role may see; what it does, and of which kind it is, only pg_monitor and its own role.
WITH seen AS (
    SELECT coalesce(a.application_name, '') AS name, a.datid, a.usesysid, count(*)::int AS sessions
      FROM pg_catalog.pg_stat_get_activity(NULL) AS a
     WHERE a.datid <> 0 AND a.usesysid <> 0 AND coalesce(a.backend_type, 'client backend') = 'client backend'
     GROUP BY 1, 2, 3
)
SELECT seen.name, seen.datid::bigint AS database, seen.usesysid::bigint AS role, seen.sessions,
       seen.datid = here.oid AS is_here, seen.usesysid = me.oid AS is_own,
       CASE WHEN me.rolsuper THEN -1 ELSE me.rolconnlimit END AS role_limit,
       CASE WHEN me.rolsuper THEN -1 ELSE here.datconnlimit END AS database_limit,
       pg_catalog.current_setting('max_connections')::int AS max_connections,
       pg_catalog.current_setting('superuser_reserved_connections')::int
           + coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0) AS reserved
  FROM seen, pg_catalog.pg_roles AS me, pg_catalog.pg_database AS here
 WHERE me.rolname = session_user AND here.datname = pg_catalog.current_database()
