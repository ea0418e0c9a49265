-- Deletes plans that are older than $1 days and of which nothing is in the log any more.
DELETE FROM slow_query_plan AS p
 WHERE p.planned_at < pg_catalog.now() - $1::float8 * interval '1 day'
   AND NOT EXISTS (SELECT FROM slow_query_log AS l WHERE l.fingerprint = p.fingerprint)
