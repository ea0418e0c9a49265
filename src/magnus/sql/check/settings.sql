-- As a new session of this role would have them (reset_val): this session has limits of its own.
SELECT name, coalesce(reset_val, setting, '') AS value, unit, context, vartype, source, sourcefile, sourceline, boot_val,
       reset_val, min_val, max_val, enumvals, pending_restart
  FROM pg_settings
