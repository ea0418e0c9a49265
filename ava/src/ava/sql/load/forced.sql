-- Tables whose row-level security binds the owner: COPY into them is refused.
select oid::regclass::text as name from pg_class where oid = any($1::text[]::regclass[]) and relforcerowsecurity
