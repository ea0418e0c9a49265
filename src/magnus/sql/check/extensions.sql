-- What this database has, and pg_stat_statements whether it has it or not.
SELECT a.name::text AS name, e.extversion AS version, a.default_version, n.nspname::text AS schema
  FROM pg_available_extensions a
  LEFT JOIN pg_extension e ON e.extname = a.name
  LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE e.oid IS NOT NULL OR a.name = 'pg_stat_statements'
UNION ALL
SELECT e.extname::text, e.extversion, NULL, n.nspname::text
  FROM pg_extension e
  JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE NOT EXISTS (SELECT FROM pg_available_extensions a WHERE a.name = e.extname)
 ORDER BY 1
