-- What a batch of an import leaves behind: lots, positions and cash, in one statement.
with used_up as (
    delete from lots
    where account_id = $1::bigint and trade_id = any($2::bigint[])
),

partly_used as (
    update lots set quantity_open = r.quantity, cost_open = r.cost
    from unnest($3::bigint[], $4::numeric[], $5::numeric[]) as r (trade_id, quantity, cost)
    where lots.account_id = $1 and lots.trade_id = r.trade_id
),

created as (
    insert into lots (trade_id, account_id, instrument_id, quantity_open, cost_open)
    select r.trade_id, $1, r.instrument_id, r.quantity, r.cost
    from unnest($6::bigint[], $7::bigint[], $8::numeric[], $9::numeric[])
        as r (trade_id, instrument_id, quantity, cost)
),

held as (
    insert into positions (account_id, instrument_id, quantity, cost_basis, realised_pnl)
    select $1, r.instrument_id, r.quantity, r.cost_basis, r.realised_pnl
    from unnest($10::bigint[], $11::numeric[], $12::numeric[], $13::numeric[])
        as r (instrument_id, quantity, cost_basis, realised_pnl)
    on conflict (account_id, instrument_id) do update set
        quantity = excluded.quantity,
        cost_basis = excluded.cost_basis,
        realised_pnl = excluded.realised_pnl,
        updated_at = now()
)

update cash set balance = $14::numeric, updated_at = now()
where account_id = $1
