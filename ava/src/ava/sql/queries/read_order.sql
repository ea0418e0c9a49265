-- All that one order needs, in one row: the answer it may already have, the instrument with its quote, the position,
-- and for a sale the $5 oldest lots.
select
    o.request_hash,
    o.reason,
    t.id,
    t.quantity,
    t.price,
    t.amount,
    t.fee,
    t.realised_pnl,
    t.executed_at,
    i.id as instrument_id,
    i.currency,
    i.is_tradable,
    q.price as quote,
    p.quantity as held,
    p.cost_basis,
    p.realised_pnl as realised_before,
    l.trade_ids,
    l.quantities,
    l.costs
from (values ($1::bigint, $2::text, $3::text)) as asked (account_id, idempotency_key, symbol)
left join orders as o on o.account_id = asked.account_id and o.idempotency_key = asked.idempotency_key
left join trades as t on t.id = o.trade_id and t.account_id = asked.account_id
left join instruments as i on i.symbol = asked.symbol
left join quotes as q on q.instrument_id = i.id
left join positions as p on p.account_id = asked.account_id and p.instrument_id = i.id
left join lateral (
    select
        array_agg(fifo.trade_id order by fifo.trade_id) as trade_ids,
        array_agg(fifo.quantity_open order by fifo.trade_id) as quantities,
        array_agg(fifo.cost_open order by fifo.trade_id) as costs
    from (
        select trade_id, quantity_open, cost_open
        from lots
        where account_id = asked.account_id and instrument_id = i.id and $4::text = 'sell'
        order by trade_id
        limit $5
    ) as fifo
) as l on true
