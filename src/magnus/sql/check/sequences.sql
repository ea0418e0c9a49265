-- A page of sequences after $1, at most $2, with the column that each one feeds: the narrowest, when there are several.
-- Their values are read apart, because pg_sequence_last_value() would take a lock for writing.
SELECT s.seqrelid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, s.seqstart AS start, s.seqmin AS least,
       s.seqmax AS most, s.seqincrement AS step, s.seqcycle AS is_cycle, u.column_name, u.column_parts, u.column_type, u.column_most,
       c.relpersistence <> 't' AND has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT')
           AS is_readable
  FROM pg_sequence s
  JOIN pg_class c ON c.oid = s.seqrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN LATERAL (
      SELECT tn.nspname || '.' || t.relname || '.' || a.attname AS column_name,
             ARRAY[tn.nspname, t.relname, a.attname]::text[] AS column_parts, format_type(a.atttypid, NULL) AS column_type,
             CASE a.atttypid WHEN 21 THEN 32767 WHEN 23 THEN 2147483647 ELSE 9223372036854775807 END::int8 AS column_most
        FROM (SELECT d.refobjid AS relid, d.refobjsubid AS attnum
                FROM pg_depend d
               WHERE d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.refclassid = 'pg_class'::regclass
                 AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
               UNION
              SELECT ad.adrelid, ad.adnum
                FROM pg_depend d JOIN pg_attrdef ad ON ad.oid = d.objid
               WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = s.seqrelid) f
        JOIN pg_attribute a ON a.attrelid = f.relid AND a.attnum = f.attnum
        JOIN pg_class t ON t.oid = f.relid
        JOIN pg_namespace tn ON tn.oid = t.relnamespace
       WHERE a.atttypid IN (20, 21, 23)
       ORDER BY 4
       LIMIT 1) u ON true
 WHERE n.nspname !~ '^pg_temp' AND s.seqrelid > $1::int8::oid
 ORDER BY s.seqrelid
 LIMIT $2
