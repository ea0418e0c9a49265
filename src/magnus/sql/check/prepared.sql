SELECT p.gid, p.owner::text AS role, p.database::text AS database,
       extract(epoch FROM clock_timestamp() - p.prepared)::float8 AS age_s, age(p.transaction) AS xid_age
  FROM pg_prepared_xacts p
 ORDER BY p.prepared
