-- Schemas in which everybody may create objects.
SELECT n.nspname::text AS name
  FROM pg_namespace n
 CROSS JOIN LATERAL aclexplode(n.nspacl) a
 WHERE a.grantee = 0 AND a.privilege_type = 'CREATE' AND n.nspname !~ '^pg_'
 ORDER BY 1
