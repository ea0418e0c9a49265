-- Where the log's table is, and which columns it has that can be written: name and type. No row: there is none.
SELECT n.nspname::text AS schema, a.attname::text AS name, pg_catalog.format_type(a.atttypid, NULL) AS type
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class r ON r.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
 WHERE a.attrelid = pg_catalog.to_regclass('slow_query_log') AND a.attnum > 0 AND NOT a.attisdropped
