-- The same for btree indexes without expressions; what they include counts.
SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, t.oid::int8 AS table_oid, c.reltuples::float8 AS tuples,
       c.relpages::int8 * current_setting('block_size')::int8 AS bytes, i.indnatts::int8 AS columns,
       count(p.attname) AS columns_seen, coalesce(sum((1 - p.null_frac) * p.avg_width), 0)::float8 AS width,
       coalesce(bool_or(p.null_frac > 0), false) AS has_nulls, c.reloptions AS options
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_namespace tn ON tn.oid = t.relnamespace
  JOIN pg_am am ON am.oid = c.relam AND am.amname = 'btree'
  LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (i.indkey::int2[])
  LEFT JOIN pg_stats p ON p.schemaname = tn.nspname AND p.tablename = t.relname AND p.attname = a.attname AND NOT p.inherited
 WHERE c.relkind = 'i' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
   AND c.relpages::int8 * current_setting('block_size')::int8 >= $1
 GROUP BY c.oid, n.nspname, c.relname, t.oid, c.reltuples, c.relpages, i.indnatts, c.reloptions
 ORDER BY c.relpages DESC
 LIMIT 500
