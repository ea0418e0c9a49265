SELECT d.datname::text AS name, d.datallowconn AS can_connect, d.datistemplate AS is_template,
       d.datconnlimit AS connection_limit, age(d.datfrozenxid) AS xid_age, mxid_age(d.datminmxid) AS mxid_age,
       s.numbackends AS sessions_now, s.xact_commit, s.xact_rollback, s.blks_read, s.blks_hit, s.temp_files, s.temp_bytes,
       s.deadlocks, s.checksum_failures, s.sessions, s.sessions_abandoned, s.sessions_fatal, s.sessions_killed,
       extract(epoch FROM clock_timestamp() - s.stats_reset)::float8 AS stats_age_s,
       d.datname = current_database() AS is_current
  FROM pg_database d
  LEFT JOIN pg_stat_database s ON s.datid = d.oid
 ORDER BY d.datname
