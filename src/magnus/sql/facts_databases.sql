-- Databases and their sizes; the size is NULL where this role may not ask for it.
SELECT d.datname::text AS name,
       CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT')
              OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
            THEN pg_catalog.pg_database_size(d.oid) END AS size
  FROM pg_catalog.pg_database d
 WHERE d.datallowconn
 ORDER BY d.datname
