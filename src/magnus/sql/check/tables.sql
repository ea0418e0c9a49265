-- A page of tables after $1, at most $2, without touching any of them: sizes are those of the last VACUUM or ANALYZE.
SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
       c.relpersistence = 'u' AS is_unlogged, c.relispartition AS is_partition,
       c.relhassubclass AS has_parts,
       n.nspname IN ('pg_catalog', 'information_schema') AS is_system,
       c.relpages::int8 * current_setting('block_size')::int8 AS bytes, c.reltuples::float8 AS tuples,
       CASE WHEN c.relfrozenxid <> '0' THEN age(c.relfrozenxid) END AS xid_age,
       CASE WHEN c.relminmxid <> '0' THEN mxid_age(c.relminmxid) END AS mxid_age,
       CASE WHEN t.relfrozenxid <> '0' THEN age(t.relfrozenxid) END AS toast_xid_age,
       CASE WHEN t.relminmxid <> '0' THEN mxid_age(t.relminmxid) END AS toast_mxid_age,
       c.reloptions AS options, t.reloptions AS toast_options, c.relreplident::text AS replica_identity,
       c.oid IN (SELECT indrelid FROM pg_index WHERE indisprimary) AS has_primary_key,
       c.oid IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e') AS is_extensions,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'id' AND NOT a.attisdropped) AS has_id,
       pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_dead_tuples(c.oid) AS dead,
       pg_stat_get_mod_since_analyze(c.oid) AS modified,
       pg_stat_get_numscans(c.oid) AS seq_scans, pg_stat_get_tuples_returned(c.oid) AS seq_rows,
       pg_stat_get_tuples_inserted(c.oid) AS inserted, pg_stat_get_tuples_updated(c.oid) AS updated,
       pg_stat_get_tuples_deleted(c.oid) AS deleted,
       extract(epoch FROM clock_timestamp() - greatest(pg_stat_get_last_vacuum_time(c.oid),
               pg_stat_get_last_autovacuum_time(c.oid)))::float8 AS vacuumed_s,
       extract(epoch FROM clock_timestamp() - greatest(pg_stat_get_last_analyze_time(c.oid),
               pg_stat_get_last_autoanalyze_time(c.oid)))::float8 AS analyzed_s
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
 WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_(toast|temp)' AND c.oid > $1::int8::oid
 ORDER BY c.oid
 LIMIT $2
