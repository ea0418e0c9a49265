SELECT r.rolname::text AS name, r.rolsuper AS is_superuser, r.rolcanlogin AS can_login, r.rolconnlimit AS connection_limit,
       r.rolreplication AS is_replication, r.oid = 10 AS is_bootstrap
  FROM pg_roles r
 WHERE r.rolcanlogin
 ORDER BY r.rolname
