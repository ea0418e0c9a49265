-- Which of our own tables this database has, in whichever schema.
SELECT n.nspname::text || '.' || c.relname::text AS name
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname IN ('slow_query_log', 'slow_query_plan') AND c.relkind IN ('r', 'p')
