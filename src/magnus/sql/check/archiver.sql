SELECT a.archived_count, a.failed_count, a.last_failed_wal,
       extract(epoch FROM clock_timestamp() - a.last_archived_time)::float8 AS archived_s,
       extract(epoch FROM clock_timestamp() - a.last_failed_time)::float8 AS failed_s
  FROM pg_stat_archiver a
