-- Which of our own tables this database has, wherever the search path finds them.
SELECT name FROM unnest(ARRAY['slow_query_log', 'slow_query_plan']) AS name
 WHERE pg_catalog.to_regclass(name) IS NOT NULL
