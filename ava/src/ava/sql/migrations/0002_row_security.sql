-- The second lock. ava_account sees the one account named in ava.account_id; ava_operator sees all of them (audit,
-- opening accounts) and is meant to be taken with "set local role" for that work only. The owner is bound too: a
-- statement that forgot to take a role finds nothing, which is why the operator's policy asks for the role itself
-- and not for membership in it.

grant select on accounts, instruments, prices, quotes, cash_movements to ava_account;
grant select, update (balance, updated_at) on cash to ava_account;
grant select, insert on trades, orders, imports to ava_account;
-- An import's row is its journal: it is written with each batch, so that one that was cut off goes on where it was.
grant update (response) on imports to ava_account;
grant select, insert, update, delete on lots to ava_account;
grant select, insert, update on positions to ava_account;

grant select, insert, update on accounts, api_tokens, cash to ava_operator;
grant select, insert on cash_movements to ava_operator;
grant select on instruments, prices, quotes, orders, trades, lots, positions, imports, ava_dataset to ava_operator;

alter table accounts enable row level security, force row level security;
alter table cash enable row level security, force row level security;
alter table cash_movements enable row level security, force row level security;
alter table orders enable row level security, force row level security;
alter table trades enable row level security, force row level security;
alter table lots enable row level security, force row level security;
alter table positions enable row level security, force row level security;
alter table imports enable row level security, force row level security;

-- The sub-select makes it one look-up a statement, not one a row.
create policy own_account on accounts to ava_account
using (id = (select nullif(current_setting('ava.account_id', true), '')::bigint));
create policy own_account on cash to ava_account
using (account_id = (select nullif(current_setting('ava.account_id', true), '')::bigint));
create policy own_account on cash_movements to ava_account
using (account_id = (select nullif(current_setting('ava.account_id', true), '')::bigint));
create policy own_account on orders to ava_account
using (account_id = (select nullif(current_setting('ava.account_id', true), '')::bigint));
create policy own_account on trades to ava_account
using (account_id = (select nullif(current_setting('ava.account_id', true), '')::bigint));
create policy own_account on lots to ava_account
using (account_id = (select nullif(current_setting('ava.account_id', true), '')::bigint));
create policy own_account on positions to ava_account
using (account_id = (select nullif(current_setting('ava.account_id', true), '')::bigint));
create policy own_account on imports to ava_account
using (account_id = (select nullif(current_setting('ava.account_id', true), '')::bigint));

create policy every_account on accounts to ava_operator using (current_user = 'ava_operator');
create policy every_account on cash to ava_operator using (current_user = 'ava_operator');
create policy every_account on cash_movements to ava_operator using (current_user = 'ava_operator');
create policy every_account on orders to ava_operator using (current_user = 'ava_operator');
create policy every_account on trades to ava_operator using (current_user = 'ava_operator');
create policy every_account on lots to ava_operator using (current_user = 'ava_operator');
create policy every_account on positions to ava_operator using (current_user = 'ava_operator');
create policy every_account on imports to ava_operator using (current_user = 'ava_operator');
