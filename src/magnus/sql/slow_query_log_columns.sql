-- Where the log's table is, and which columns it has: name and type. No row: there is none.
SELECT n.nspname::text AS schema, magnus_column.attname::text AS name,
       pg_catalog.format_type(magnus_column.atttypid, NULL) AS type
  FROM pg_catalog.pg_attribute AS magnus_column
  JOIN pg_catalog.pg_class r ON r.oid = magnus_column.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
 WHERE magnus_column.attrelid = pg_catalog.to_regclass('slow_query_log')
   AND magnus_column.attnum > 0 AND NOT magnus_column.attisdropped
