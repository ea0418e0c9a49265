-- Every setting as this session sees it. sourcefile and sourceline are NULL without pg_read_all_settings.
SELECT name, setting, unit, context, vartype, source, sourcefile, sourceline, boot_val, reset_val, min_val, max_val,
       enumvals, pending_restart,
       pg_catalog.has_parameter_privilege(name, 'ALTER SYSTEM') AS can_alter
  FROM pg_catalog.pg_settings
