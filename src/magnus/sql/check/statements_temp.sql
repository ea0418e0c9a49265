-- {schema}: where the extension is. The queries of this database that write the most temporary blocks.
SELECT s.queryid::text AS queryid, s.calls, s.temp_blks_written AS blocks
  FROM {schema}.pg_stat_statements(false) s
 WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND s.temp_blks_written > 0 AND s.queryid IS NOT NULL
 ORDER BY s.temp_blks_written DESC
 LIMIT 3
