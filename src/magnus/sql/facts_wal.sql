-- WAL since the last reset of its statistics, and how long that is.
SELECT wal_bytes::float8 AS bytes,
       extract(epoch FROM pg_catalog.clock_timestamp() - stats_reset)::float8 AS age
  FROM pg_catalog.pg_stat_wal
