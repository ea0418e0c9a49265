select trade_id, account_id, instrument_id, quantity_open::text, cost_open::text
from lots
where trade_id > $1
order by trade_id
limit $2
