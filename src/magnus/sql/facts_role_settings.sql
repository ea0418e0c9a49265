-- ALTER ROLE … SET and ALTER DATABASE … SET.
SELECT r.rolname::text AS role, d.datname::text AS database, split_part(item, '=', 1) AS name,
       substr(item, strpos(item, '=') + 1) AS value
  FROM pg_catalog.pg_db_role_setting s
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
  LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
 CROSS JOIN LATERAL unnest(s.setconfig) AS item
 ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, 3
