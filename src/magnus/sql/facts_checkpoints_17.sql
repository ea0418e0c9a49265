-- Checkpoints by time and on request, from PostgreSQL 17.
SELECT num_timed AS timed, num_requested AS requested FROM pg_catalog.pg_stat_checkpointer
