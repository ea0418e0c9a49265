-- One row at least: the account with its cash, the position's columns null when there is none.
select
    a.currency,
    coalesce(c.balance, 0) as cash,
    i.symbol,
    i.name,
    p.quantity,
    p.cost_basis,
    p.realised_pnl,
    q.price,
    q.as_of as priced_at
from accounts as a
left join cash as c on c.account_id = a.id
left join positions as p on p.account_id = a.id
left join instruments as i on i.id = p.instrument_id
left join quotes as q on q.instrument_id = p.instrument_id
where a.id = $1
order by i.symbol
