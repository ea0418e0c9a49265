-- Deletes what is too old ($1 days, NULL: nothing) or too much ($2 rows, NULL: nothing), at most $3 rows a call.
WITH old AS (
    SELECT id FROM slow_query_log
     WHERE "timestamp" < pg_catalog.now() - $1::float8 * interval '1 day'
        OR $2::bigint IS NOT NULL  -- OFFSET NULL would be OFFSET 0, and that everything
           AND id <= (SELECT id FROM slow_query_log ORDER BY id DESC OFFSET $2::bigint LIMIT 1)
     ORDER BY id
     LIMIT $3
)
DELETE FROM slow_query_log USING old WHERE slow_query_log.id = old.id
