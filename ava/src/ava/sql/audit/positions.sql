select account_id, instrument_id, quantity::text, cost_basis::text, realised_pnl::text
from positions
where (account_id, instrument_id) > ($1, $2)
order by account_id, instrument_id
limit $3
