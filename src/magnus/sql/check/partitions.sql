-- The partitions of $1 that hold rows, at every depth.
SELECT n.nspname::text AS schema, c.relname::text AS name
  FROM pg_catalog.pg_partition_tree($1::int8::oid::regclass) p
  JOIN pg_catalog.pg_class c ON c.oid = p.relid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE p.isleaf
 ORDER BY 1, 2
