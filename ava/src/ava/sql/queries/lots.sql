select instrument_id, trade_id, quantity_open, cost_open
from lots
where account_id = $1 and instrument_id = any($2::bigint[])
order by trade_id
