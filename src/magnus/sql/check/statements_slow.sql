-- {schema}: where the extension is. The $1 statements of this database that took the most time, with their texts;
-- without those about the catalogue, which are tools'.
SELECT s.queryid::text AS queryid, sum(s.calls)::int8 AS calls, (sum(s.total_exec_time) / 1000)::float8 AS total_s, min(s.query) AS text
  FROM {schema}.pg_stat_statements s
 WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
   AND (s.query ~* '^\s*(select|with|update|delete)\M' OR s.queryid IS NULL)
   AND s.query !~* '\m(pg_catalog|pg_stat\w*|pg_class|pg_settings|pg_database|pg_roles|pg_type|pg_[a-z]+_[a-z]+\()'
 GROUP BY s.queryid
 ORDER BY 3 DESC
 LIMIT $1
