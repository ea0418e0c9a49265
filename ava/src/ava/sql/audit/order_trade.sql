-- Every filled order has the trade that it asked for, at no worse a price than its limit; a refused one has none.
select
    o.account_id,
    format('order %s', o.id) as subject,
    case o.status
        when 'filled' then format(
            'a trade: %s %s of instrument %s, key %s, limit %s',
            o.side, o.quantity, o.instrument_id, o.idempotency_key, coalesce(o.limit_price::text, 'none')
        )
        else 'no trade'
    end as expected,
    coalesce(format(
        'trade %s of account %s: %s %s of instrument %s at %s, key %s',
        t.id, t.account_id, t.side, t.quantity, t.instrument_id, t.price, t.idempotency_key
    ), 'none') as found,
    count(*) over () as total
from orders as o
left join trades as t on t.id = o.trade_id
where
    case o.status
        when 'filled' then
            (t.account_id, t.idempotency_key, t.instrument_id, t.side, t.quantity)
            is distinct from (o.account_id, o.idempotency_key, o.instrument_id, o.side, o.quantity)
            or coalesce(case o.side when 'buy' then t.price > o.limit_price else t.price < o.limit_price end, false)
        else o.trade_id is not null
    end
order by o.id
limit $1
