-- Orders and imports are units of work that happen once, by the layer's table of keys; what is left of the older keys in
-- orders, trades and imports stays unique for ever. The table's text is that of `magnus once install --print`.
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

grant select, insert on magnus_once to ava_account;
grant update (status, response, reference, replays) on magnus_once to ava_account;
grant select on magnus_once to ava_operator;
grant update (response) on magnus_once to ava_operator;
alter table magnus_once enable row level security, force row level security;
create policy own_account on magnus_once to ava_account
using (scope = 'account:' || (select nullif(current_setting('ava.account_id', true), '')));
create policy every_account on magnus_once to ava_operator using (current_user = 'ava_operator');

-- What happened, for others: written with the trade, told by a relay, at least once and in any order between accounts.
create table outbox (
    id bigint generated always as identity primary key,
    account_id bigint not null references accounts (id),
    kind text not null check (length(kind) between 1 and 64),
    payload jsonb not null,
    created_at timestamptz not null default now(),
    published_at timestamptz
);
create index outbox_pending on outbox (id) where published_at is null;
create index outbox_published on outbox (published_at) where published_at is not null;
comment on table outbox is 'Events to be told to others; written in the same transaction as what they tell of.';
grant insert on outbox to ava_account;
grant select, delete on outbox to ava_operator;
grant update (published_at) on outbox to ava_operator;
alter table outbox enable row level security, force row level security;
create policy own_account on outbox to ava_account
using (account_id = (select nullif(current_setting('ava.account_id', true), '')::bigint));
create policy every_account on outbox to ava_operator using (current_user = 'ava_operator');
