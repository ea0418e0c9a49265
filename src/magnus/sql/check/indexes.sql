-- A page of indexes after $1, at most $2, without touching any of them. Expressions stay in the catalogue's own form:
-- to write them as SQL, the server would lock the table.
SELECT i.indexrelid::int8 AS oid, i.indrelid::int8 AS table_oid, n.nspname::text AS schema, c.relname::text AS name,
       t.relname::text AS "table", c.relkind = 'I' AS is_partitioned, c.relispartition AS is_partition, am.amname::text AS method,
       i.indnkeyatts::int4 AS keys, i.indkey::text AS columns, i.indclass::text AS classes, i.indcollation::text AS collations,
       i.indoption::text AS options, i.indexprs::text AS expressions, i.indpred::text AS predicate,
       i.indisunique AS is_unique, i.indisprimary AS is_primary, i.indisexclusion AS is_exclusion,
       i.indimmediate AS is_immediate, i.indisvalid AS is_valid, i.indisready AS is_ready, i.indislive AS is_live,
       i.indisreplident AS is_replica_identity, i.indisclustered AS is_clustered, i.indnullsnotdistinct AS nulls_not_distinct,
       i.indexrelid IN (SELECT conindid FROM pg_constraint WHERE conindid <> 0) AS is_constraint,
       n.nspname IN ('pg_catalog', 'information_schema') AS is_system,
       c.relpages::int8 * current_setting('block_size')::int8 AS bytes, c.reltuples::float8 AS tuples,
       pg_stat_get_numscans(i.indexrelid) AS scans,
       pg_stat_get_tuples_inserted(i.indrelid) + pg_stat_get_tuples_updated(i.indrelid) + pg_stat_get_tuples_deleted(i.indrelid)
           AS table_writes
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_am am ON am.oid = c.relam
 WHERE t.relkind IN ('r', 'p', 'm') AND t.relpersistence <> 't' AND n.nspname !~ '^pg_(toast|temp)'
   AND i.indexrelid > $1::int8::oid
 ORDER BY i.indexrelid
 LIMIT $2
