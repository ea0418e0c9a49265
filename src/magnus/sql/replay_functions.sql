-- Which of the functions named in $1 may do something; `is_own`: the server's own.
SELECT DISTINCT magnus_replay.proname::text AS name, n.nspname = 'pg_catalog' AS is_own
  FROM pg_catalog.pg_proc AS magnus_replay
  JOIN pg_catalog.pg_namespace n ON n.oid = magnus_replay.pronamespace
 WHERE magnus_replay.provolatile = 'v' AND magnus_replay.proname = ANY ($1::text[])
