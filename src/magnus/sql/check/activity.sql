-- Without the text of the statements: it may hold secrets, and no check needs it.
SELECT a.pid, a.datname::text AS database, a.usename::text AS role, a.application_name AS application,
       a.client_addr::text AS client, a.backend_type, a.state, a.wait_event_type, a.wait_event,
       a.query IS DISTINCT FROM '<insufficient privilege>' AS is_visible,
       extract(epoch FROM clock_timestamp() - a.backend_start)::float8 AS session_s,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_s,
       extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS state_s,
       age(a.backend_xid) AS xid_age, age(a.backend_xmin) AS xmin_age
  FROM pg_stat_activity a
 WHERE a.pid <> pg_backend_pid()
