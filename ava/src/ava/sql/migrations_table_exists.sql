select exists (
    select from pg_tables where tablename = 'ava_migrations' and schemaname = any(current_schemas(false))
)
