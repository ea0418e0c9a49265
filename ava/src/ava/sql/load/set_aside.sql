-- Keys and indexes of the given tables as pairs of statements. They go in falling order of rank (what points at a key
-- before the key) and come back in rising order.
select rank, label, remove, restore
from (
    select
        case contype when 'f' then 3 else 1 end as rank,
        conname::text as label,
        format('alter table %s drop constraint %I', conrelid::regclass, conname) as remove,
        format('alter table %s add constraint %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) as restore
    from pg_constraint
    where contype in ('p', 'u', 'f') and (conrelid = any($1::text[]::regclass[]) or confrelid = any($1::text[]::regclass[]))
    union all
    select 2, indexrelid::regclass::text, format('drop index %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
    from pg_index
    where
        indrelid = any($1::text[]::regclass[])
        and not exists (select from pg_constraint where conindid = indexrelid and contype in ('p', 'u', 'x'))
) as kept
order by rank, label
