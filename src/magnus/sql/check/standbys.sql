-- Columns other than pid are NULL without pg_read_all_stats.
SELECT r.pid, r.application_name AS name, r.client_addr::text AS client, r.state, r.sync_state,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
                       r.replay_lsn)::float8 AS behind,
       extract(epoch FROM r.replay_lag)::float8 AS lag_s, age(r.backend_xmin) AS xmin_age
  FROM pg_stat_replication r
 ORDER BY r.application_name
