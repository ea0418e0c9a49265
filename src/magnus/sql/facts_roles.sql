-- Roles that may log in.
SELECT r.rolname::text AS name, r.rolsuper AS is_superuser, r.rolreplication AS is_replication,
       pg_catalog.pg_has_role(r.oid, 'pg_monitor', 'MEMBER') AS is_monitor, r.rolconnlimit AS connection_limit,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid)::int AS sessions
  FROM pg_catalog.pg_roles r
 WHERE r.rolcanlogin
 ORDER BY r.rolname
