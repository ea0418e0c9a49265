-- Reads with their time (0 unless track_io_timing), temporary files, and how old these statistics are.
SELECT sum(blks_read)::float8 AS blocks, sum(blk_read_time)::float8 AS ms, sum(temp_bytes)::float8 AS temp_bytes,
       extract(epoch FROM pg_catalog.clock_timestamp() - min(stats_reset))::float8 AS age
  FROM pg_catalog.pg_stat_database
