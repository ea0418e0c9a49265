-- A filled order: trade, order, lots, position, cash and the event of it in one statement. The figures are computed by the caller, who
-- holds the account's lock. The time of a trade is that of its booking, not of the transaction's begin, which may
-- have waited for the lock.
with trade as (
    insert into trades (
        account_id, instrument_id, side, quantity, price, amount, realised_pnl, executed_at, idempotency_key, source
    )
    values (
        $1::bigint, $2::bigint, $3::text, $4::numeric, $5::numeric, $6::numeric, $7::numeric, clock_timestamp(),
        $8::text, 'api'
    )
    returning id, executed_at
),

answered as (
    insert into orders (
        account_id, idempotency_key, request_hash, instrument_id, symbol, side, quantity, limit_price, status, trade_id
    )
    select $1, $8, $9::bytea, $2, $10::text, $3, $4, $11::numeric, 'filled', id
    from trade
),

bought as (
    insert into lots (trade_id, account_id, instrument_id, quantity_open, cost_open)
    select id, $1, $2, $4, $12::numeric
    from trade
    where $3 = 'buy'
),

used_up as (
    delete from lots
    where account_id = $1 and trade_id = any($13::bigint[])
),

partly_used as (
    update lots set quantity_open = $15::numeric, cost_open = $16::numeric
    where account_id = $1 and trade_id = $14::bigint
),

held as (
    insert into positions (account_id, instrument_id, quantity, cost_basis, realised_pnl)
    values ($1, $2, $17::numeric, $18::numeric, $19::numeric)
    on conflict (account_id, instrument_id) do update set
        quantity = excluded.quantity,
        cost_basis = excluded.cost_basis,
        realised_pnl = excluded.realised_pnl,
        updated_at = now()
),

paid as (
    update cash set balance = $20::numeric, updated_at = now()
    where account_id = $1
),

told as (
    insert into outbox (account_id, kind, payload)
    select
        $1,
        'trade-executed',
        jsonb_build_object(
            'trade_id', id, 'account_id', $1, 'symbol', $10, 'side', $3, 'quantity', $4::text, 'price', $5::text,
            'amount', $6::text, 'executed_at', executed_at
        )
    from trade
)

select id, executed_at
from trade
