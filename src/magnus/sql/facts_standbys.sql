-- Who follows this server. Without pg_monitor the rows are there, but empty.
SELECT coalesce(application_name, '') AS name, client_addr::text AS address, coalesce(state, '') AS state,
       coalesce(sync_state, '') AS sync_state
  FROM pg_catalog.pg_stat_replication
 ORDER BY 1, 2
