-- Who this server is and what this role may do; one row, PostgreSQL 15 to 18, any role.
SELECT pg_catalog.current_setting('server_version_num')::int AS version_num,
       pg_catalog.current_database()::text AS database,
       pg_catalog.current_schema()::text AS schema,
       current_user::text AS role,
       pg_catalog.pg_is_in_recovery() AS is_standby,
       pg_catalog.pg_backend_pid() AS pid,
       pg_catalog.inet_client_port() AS client_port,
       pg_catalog.inet_server_addr()::text AS address,
       pg_catalog.pg_postmaster_start_time()::text AS started,
       extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_postmaster_start_time())::float8 AS uptime,
       (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) AS is_superuser,
       pg_catalog.pg_has_role('pg_monitor', 'USAGE') AS is_monitor,
       pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE') AS can_see_files,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS can_create,
       pg_catalog.has_function_privilege('pg_catalog.pg_reload_conf()', 'EXECUTE') AS can_reload,
       ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r
              WHERE pg_catalog.pg_has_role(r.oid, 'MEMBER') AND r.rolname <> current_user) AS memberships,
       (SELECT coalesce(sum(d.numbackends), 0) - 1 FROM pg_catalog.pg_stat_database d)::int AS sessions
