-- {schema}: where the extension is. Without the texts: they lie in a file that may be large.
SELECT i.dealloc, extract(epoch FROM clock_timestamp() - i.stats_reset)::float8 AS age_s,
       (SELECT count(*) FROM {schema}.pg_stat_statements(false)) AS entries
  FROM {schema}.pg_stat_statements_info i
