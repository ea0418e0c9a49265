-- Tables by the name of the slow-query log, wherever they are.
SELECT n.nspname::text AS schema, c.relname::text AS name,
       ARRAY(SELECT a.attname || ' ' || format_type(a.atttypid, NULL) FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
       pg_stat_get_live_tuples(c.oid) AS live
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = 'slow_query_log' AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'
 ORDER BY 1
