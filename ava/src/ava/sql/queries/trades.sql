-- One page, newest first, from the index (account_id, executed_at desc, id desc). Bounds that were not asked for are
-- sent as the widest ones: with "or … is null" a generic plan could not begin at the cursor.
with page as (
    select id, instrument_id, side, quantity, price, amount, fee, realised_pnl, executed_at
    from trades
    where
        account_id = $1
        and (executed_at, id) < ($2::timestamptz, $3::bigint)
        and executed_at >= $4::timestamptz
        and ($5::text is null or instrument_id = (select id from instruments where symbol = $5))
        and ($6::text is null or side = $6)
    order by executed_at desc, id desc
    limit $7
)

select
    p.id, i.symbol, p.side, p.quantity, p.price, p.amount, p.fee, p.realised_pnl, i.currency, p.executed_at
from page as p
inner join instruments as i on i.id = p.instrument_id
order by p.executed_at desc, p.id desc
