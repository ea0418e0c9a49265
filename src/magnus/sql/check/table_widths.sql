-- What an estimate of bloat needs, for tables of $1 bytes or more. A column whose statistics are hidden or were never
-- made is missing from columns_seen.
SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, c.reltuples::float8 AS tuples,
       c.relpages::int8 * current_setting('block_size')::int8 AS bytes, count(a.attname) AS columns,
       count(p.attname) AS columns_seen, coalesce(sum((1 - p.null_frac) * p.avg_width), 0)::float8 AS width,
       coalesce(bool_or(p.null_frac > 0), false) AS has_nulls, c.reloptions AS options
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_stats p ON p.schemaname = n.nspname AND p.tablename = c.relname AND p.attname = a.attname AND NOT p.inherited
 WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
   AND c.relpages::int8 * current_setting('block_size')::int8 >= $1
 GROUP BY c.oid, n.nspname, c.relname, c.reltuples, c.relpages, c.reloptions
 ORDER BY c.relpages DESC
 LIMIT 500
