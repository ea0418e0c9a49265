-- The identifier that initdb gave the cluster; its standbys and copies of its files share it.
SELECT system_identifier::text FROM pg_catalog.pg_control_system()
