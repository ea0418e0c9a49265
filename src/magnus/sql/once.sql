-- Keys of units of work that happen once, and the answers they were given. A row is written in the same transaction as
-- the effects it stands for; without an answer it never gets committed.
create table if not exists magnus_once (
    scope text not null check (length(scope) between 1 and 255),
    operation text not null check (length(operation) between 1 and 255),
    key text not null check (length(key) between 1 and 255),
    request_hash bytea not null check (octet_length(request_hash) = 32),
    status text check (status in ('done', 'refused')),
    response text,
    reference text check (length(reference) between 1 and 255),
    replays bigint not null default 0,
    created_at timestamptz not null default now(),
    constraint magnus_once_key primary key (scope, operation, key)
) with (fillfactor = 70);
-- Retention looks for what is old; this kind of index costs next to nothing when rows are written.
create index if not exists magnus_once_created on magnus_once using brin (created_at);
comment on table magnus_once is 'Units of work that happen once: unique for (scope, operation, key), for ever.';
comment on column magnus_once.response is 'The answer as JSON; taken away by retention, which leaves key and reference.';
comment on column magnus_once.reference is 'What the unit made, such as the id of a trade.';
