-- What the configuration files say, last one first where a name stands twice. Needs a grant, or superuser.
SELECT DISTINCT ON (lower(name)) lower(name) AS name, setting, sourcefile, sourceline
  FROM pg_catalog.pg_file_settings
 WHERE name IS NOT NULL
 ORDER BY lower(name), seqno DESC
