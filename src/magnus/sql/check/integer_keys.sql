-- Primary keys of int2 or int4 that no sequence feeds: their highest value when ANALYZE last looked. The statistics of
-- a column are shown to those who may read it.
SELECT t.oid::int8 AS oid, n.nspname::text AS schema, t.relname::text AS name, a.attname::text AS "column", format_type(a.atttypid, NULL) AS type,
       CASE a.atttypid WHEN 21 THEN 32767 ELSE 2147483647 END::int8 AS most, t.reltuples::float8 AS tuples,
       has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(t.oid, a.attnum, 'SELECT') AS is_readable,
       (SELECT (v.bounds)[array_length(v.bounds, 1)]
          FROM (SELECT p.histogram_bounds::text::int8[] AS bounds FROM pg_stats p
                 WHERE p.schemaname = n.nspname AND p.tablename = t.relname AND p.attname = a.attname AND NOT p.inherited) v)
           AS highest
  FROM pg_index i
  JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
 WHERE i.indisprimary AND i.indnkeyatts = 1 AND a.atttypid IN (21, 23) AND t.relkind = 'r' AND NOT a.atthasdef
   AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_temp'
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND d.refobjsubid = a.attnum
                      AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))
   AND t.oid > $1::int8::oid
 ORDER BY t.oid
 LIMIT $2
