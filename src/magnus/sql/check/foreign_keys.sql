-- A page of foreign keys after $1, at most $2; those of partitions belong to their parent's.
SELECT k.oid::int8 AS oid, n.nspname::text AS schema, t.relname::text AS "table", k.conname::text AS name, k.conrelid::int8 AS table_oid,
       k.conkey::int4[] AS columns, rn.nspname || '.' || r.relname AS referenced, r.relkind = 'p' AS is_referenced_partitioned,
       t.relkind = 'p' AS is_partitioned, t.reltuples::float8 AS tuples,
       t.relpages::int8 * current_setting('block_size')::int8 AS bytes,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (attnum, place)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.place) AS names,
       pg_stat_get_tuples_deleted(k.confrelid) AS deleted, pg_stat_get_tuples_updated(k.confrelid) AS updated
  FROM pg_constraint k
  JOIN pg_class t ON t.oid = k.conrelid
  JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_class r ON r.oid = k.confrelid
  JOIN pg_namespace rn ON rn.oid = r.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0 AND k.oid > $1::int8::oid
 ORDER BY k.oid
 LIMIT $2
