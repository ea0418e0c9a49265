SELECT r.rolname::text AS role, d.datname::text AS database, split_part(c.entry, '=', 1) AS name,
       substr(c.entry, strpos(c.entry, '=') + 1) AS value
  FROM pg_db_role_setting s
 CROSS JOIN LATERAL unnest(s.setconfig) AS c (entry)
  LEFT JOIN pg_roles r ON r.oid = s.setrole
  LEFT JOIN pg_database d ON d.oid = s.setdatabase
 ORDER BY 1, 2, 3
