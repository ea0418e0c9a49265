-- Removes what slow_query_log.sql makes, with what was logged.
DROP TABLE IF EXISTS slow_query_plan;
DROP TABLE IF EXISTS slow_query_log;
