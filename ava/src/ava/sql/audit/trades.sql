select
    id, account_id, instrument_id, side, quantity::text, price::text, amount::text, fee::text, realised_pnl::text
from trades
where id > $1
order by id
limit $2
