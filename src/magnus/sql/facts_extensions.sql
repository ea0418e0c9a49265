-- Extensions that can be had, and the version that this database has.
SELECT a.name::text, a.default_version, e.extversion AS version, n.nspname::text AS schema
  FROM pg_catalog.pg_available_extensions a
  LEFT JOIN pg_catalog.pg_extension e ON e.extname = a.name
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 ORDER BY a.name
