-- Superusers only.
SELECT a.rolname::text AS name FROM pg_authid a WHERE a.rolcanlogin AND a.rolpassword LIKE 'md5%' ORDER BY 1
