SELECT s.slot_name::text AS name, s.slot_type AS kind, s.active, s.wal_status, s.safe_wal_size, s.temporary,
       s.database::text AS database, age(s.xmin) AS xmin_age, age(s.catalog_xmin) AS catalog_xmin_age,
       CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_receive_lsn(), s.restart_lsn)
            ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END::float8 AS retained,
       extract(epoch FROM clock_timestamp() - s.inactive_since)::float8 AS inactive_s,
       s.invalidation_reason AS invalidation
  FROM pg_replication_slots s
 ORDER BY s.slot_name
