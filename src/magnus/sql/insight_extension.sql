-- Whether pg_stat_statements can be read here: preloaded, created, its schema, version and columns.
SELECT CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
            THEN pg_catalog.current_setting('shared_preload_libraries') END AS preloaded,
       n.nspname::text AS schema,
       e.extversion::text AS version,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = pg_catalog.to_regclass(pg_catalog.quote_ident(n.nspname) || '.pg_stat_statements')
                AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       pg_catalog.to_regclass(pg_catalog.quote_ident(n.nspname) || '.pg_stat_statements_info') IS NOT NULL AS has_info,
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
       current_user::text AS role,
       pg_catalog.pg_postmaster_start_time() AS started_at
  FROM (SELECT) AS here
  LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'pg_stat_statements'
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
