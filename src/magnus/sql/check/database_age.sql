-- How long this database exists: the file that CREATE DATABASE writes. Needs pg_read_server_files.
SELECT extract(epoch FROM clock_timestamp() - f.modification)::float8 AS age_s
  FROM pg_database d
 CROSS JOIN LATERAL pg_stat_file('base/' || d.oid || '/PG_VERSION', true) f
 WHERE d.datname = current_database() AND f.modification IS NOT NULL
