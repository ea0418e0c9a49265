-- The ledger: who trades, what, at which price, and what came of it.
-- Cash is numeric(20,2), prices and quantities are numeric(20,8). Both types accept NaN, which is greater than every
-- number, so each check that a figure is not negative also refuses NaN.

create table accounts (
    id bigint generated always as identity primary key,
    owner_name text not null check (length(owner_name) between 1 and 200),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    time_zone text not null check (length(time_zone) between 1 and 64),
    created_at timestamptz not null default now()
);
comment on table accounts is 'One customer account: one currency, and the time zone its months are counted in.';

create table api_tokens (
    id bigint generated always as identity primary key,
    account_id bigint not null references accounts (id),
    token_sha256 bytea not null unique check (octet_length(token_sha256) = 32),
    label text not null default '' check (length(label) <= 200),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
create index api_tokens_account on api_tokens (account_id);
comment on table api_tokens is 'Bearer tokens; only the SHA-256 digest is kept.';

create table instruments (
    id bigint generated always as identity primary key,
    symbol text not null unique check (length(symbol) between 1 and 32),
    name text not null check (length(name) between 1 and 200),
    market text not null check (length(market) between 1 and 32),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    is_tradable boolean not null default true
);
comment on table instruments is 'What can be bought and sold, and in which currency.';

create table prices (
    instrument_id bigint not null references instruments (id),
    price_date date not null,
    close numeric(20, 8) not null check (close > 0 and close <> 'NaN'),
    primary key (instrument_id, price_date)
);
comment on table prices is 'Closing price of each trading day.';

create table quotes (
    instrument_id bigint not null primary key references instruments (id),
    price numeric(20, 8) not null check (price > 0 and price <> 'NaN'),
    as_of timestamptz not null default now()
);
comment on table quotes is 'The price an order executes at now.';

-- Every booking updates this row; room on its page keeps the update from touching the index.
create table cash (
    account_id bigint not null primary key references accounts (id),
    balance numeric(20, 2) not null default 0 check (balance >= 0 and balance <> 'NaN'),
    updated_at timestamptz not null default now()
) with (fillfactor = 50);
comment on table cash is 'Cash of an account. Locking this row (select … for update) serialises the account''s bookings.';

create table cash_movements (
    id bigint generated always as identity primary key,
    account_id bigint not null references accounts (id),
    amount numeric(20, 2) not null check (amount <> 'NaN'),
    kind text not null check (kind in ('deposit', 'withdrawal')),
    created_at timestamptz not null default now(),
    constraint cash_movements_sign check (case kind when 'deposit' then amount > 0 else amount < 0 end)
);
create index cash_movements_account on cash_movements (account_id);
comment on table cash_movements is 'Cash paid in (positive) and out (negative), apart from trades.';

create table trades (
    id bigint generated always as identity primary key,
    account_id bigint not null references accounts (id),
    instrument_id bigint not null references instruments (id),
    side text not null check (side in ('buy', 'sell')),
    quantity numeric(20, 8) not null check (quantity > 0 and quantity <> 'NaN'),
    price numeric(20, 8) not null check (price > 0 and price <> 'NaN'),
    amount numeric(20, 2) not null check (amount > 0 and amount <> 'NaN'),
    fee numeric(20, 2) not null default 0 check (fee >= 0 and fee <> 'NaN'),
    realised_pnl numeric(20, 2) check (realised_pnl <> 'NaN'),
    executed_at timestamptz not null default now(),
    idempotency_key text check (length(idempotency_key) between 1 and 255),
    external_id text check (length(external_id) between 1 and 255),
    source text not null check (source in ('api', 'import', 'seed')),
    constraint trades_realised_on_sale check ((realised_pnl is not null) = (side = 'sell')),
    constraint trades_origin check (
        case source
            when 'api' then idempotency_key is not null
            when 'import' then external_id is not null
            else idempotency_key is null and external_id is null
        end
    )
);
-- A page of an account's trades, newest first; the monthly report reads this index and not the table.
create index trades_account_time on trades (account_id, executed_at desc, id desc)
include (side, amount, fee, realised_pnl);
-- Exactly once, for ever.
create unique index trades_idempotency_key on trades (account_id, idempotency_key) where idempotency_key is not null;
create unique index trades_external_id on trades (account_id, external_id) where external_id is not null;
comment on table trades is 'Executed trades; never changed, never deleted. Booking order of an account is the order of id.';
comment on column trades.amount is 'quantity * price in cents, half-even, without sign and without fee.';

create table orders (
    id bigint generated always as identity primary key,
    account_id bigint not null references accounts (id),
    idempotency_key text not null check (length(idempotency_key) between 1 and 255),
    request_hash bytea not null,
    instrument_id bigint references instruments (id),
    symbol text not null check (length(symbol) between 1 and 32),
    side text not null check (side in ('buy', 'sell')),
    quantity numeric(20, 8) not null check (quantity > 0 and quantity <> 'NaN'),
    limit_price numeric(20, 8) check (limit_price > 0 and limit_price <> 'NaN'),
    status text not null check (status in ('filled', 'rejected')),
    reason text,
    trade_id bigint unique references trades (id),
    created_at timestamptz not null default now(),
    constraint orders_idempotency_key unique (account_id, idempotency_key),
    constraint orders_filled_by_trade check ((trade_id is not null) = (status = 'filled')),
    constraint orders_rejected_for_reason check ((reason is not null) = (status = 'rejected'))
);
comment on table orders is 'Orders as they were asked, and their final answer; refusals are kept too.';

create table lots (
    trade_id bigint not null primary key references trades (id),
    account_id bigint not null references accounts (id),
    instrument_id bigint not null references instruments (id),
    quantity_open numeric(20, 8) not null check (quantity_open > 0 and quantity_open <> 'NaN'),
    cost_open numeric(20, 2) not null check (cost_open >= 0 and cost_open <> 'NaN')
) with (fillfactor = 80);
-- First in, first out: a sale reads its lots in this order and stops at the last one it needs.
create index lots_fifo on lots (account_id, instrument_id, trade_id);
comment on table lots is 'What is still open of each buy; a lot that is used up is deleted.';

create table positions (
    account_id bigint not null references accounts (id),
    instrument_id bigint not null references instruments (id),
    quantity numeric(20, 8) not null check (quantity >= 0 and quantity <> 'NaN'),
    cost_basis numeric(20, 2) not null check (cost_basis >= 0 and cost_basis <> 'NaN'),
    realised_pnl numeric(20, 2) not null default 0 check (realised_pnl <> 'NaN'),
    updated_at timestamptz not null default now(),
    primary key (account_id, instrument_id),
    constraint positions_empty_is_free check (quantity > 0 or cost_basis = 0)
) with (fillfactor = 80);
comment on table positions is 'Sums over lots and trades; a sold-out position stays, with what it realised.';

create table imports (
    id bigint generated always as identity primary key,
    account_id bigint not null references accounts (id),
    idempotency_key text not null check (length(idempotency_key) between 1 and 255),
    request_hash bytea not null,
    mode text not null,
    response jsonb not null,
    created_at timestamptz not null default now(),
    constraint imports_idempotency_key unique (account_id, idempotency_key)
);
comment on table imports is 'Imports with how far they are booked, and, once they are done, the answer they were given.';

create table ava_dataset (
    is_only boolean not null primary key default true check (is_only),
    scale numeric not null,
    seed bigint not null,
    as_of date not null,
    accounts bigint not null,
    trades bigint not null,
    loaded_at timestamptz not null default now()
);
comment on table ava_dataset is 'The generated data that this database was loaded with; written in the same transaction.';
