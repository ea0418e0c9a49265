-- Indexes that are being built or rebuilt in this database; relid is NULL for other roles' without pg_read_all_stats.
SELECT p.pid, p.relid::int8 AS table_oid, p.index_relid::int8 AS oid
  FROM pg_stat_progress_create_index p
 WHERE p.datname = current_database()
