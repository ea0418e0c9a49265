-- One row: who answers, as whom we ask, and how old the statistics are.
SELECT current_setting('server_version_num')::int4 AS version_num,
       current_setting('server_version') AS version,
       pg_is_in_recovery() AS is_standby,
       current_database()::text AS database,
       current_user::text AS role,
       r.rolsuper AS is_superuser,
       r.rolsuper OR pg_has_role('pg_monitor', 'USAGE') AS is_monitor,
       r.rolsuper OR pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all_stats,
       current_setting('block_size')::int8 AS block_size,
       extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS up_s,
       extract(epoch FROM clock_timestamp() - d.stats_reset)::float8 AS stats_age_s,
       extract(epoch FROM clock_timestamp() - b.stats_reset)::float8 AS server_stats_age_s,
       r.rolsuper OR pg_has_role('pg_read_all_settings', 'USAGE') AS sees_all_settings,
       extract(epoch FROM clock_timestamp())::float8 AS taken_at
  FROM pg_roles r
  LEFT JOIN pg_stat_database d ON d.datname = current_database()
 CROSS JOIN pg_stat_bgwriter b
 WHERE r.rolname = current_user
