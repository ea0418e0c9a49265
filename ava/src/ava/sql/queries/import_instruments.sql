select i.id, i.symbol, i.currency, i.is_tradable, p.quantity, p.cost_basis, p.realised_pnl
from instruments as i
left join positions as p on p.account_id = $1 and p.instrument_id = i.id
where i.symbol = any($2::text[])
