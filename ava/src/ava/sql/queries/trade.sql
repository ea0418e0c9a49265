select
    t.id, i.symbol, t.side, t.quantity, t.price, t.amount, t.fee, t.realised_pnl, i.currency, t.executed_at
from trades as t
inner join instruments as i on i.id = t.instrument_id
where t.account_id = $1 and t.id = $2
