SELECT b.checkpoints_timed AS timed, b.checkpoints_req AS requested,
       extract(epoch FROM clock_timestamp() - b.stats_reset)::float8 AS age_s, w.wal_bytes::float8 AS wal_bytes,
       extract(epoch FROM clock_timestamp() - w.stats_reset)::float8 AS wal_age_s
  FROM pg_stat_bgwriter b CROSS JOIN pg_stat_wal w
