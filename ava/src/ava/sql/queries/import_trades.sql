-- The order of ids is the booking order, which first-in-first-out goes by; so rows are numbered as they come.
insert into trades (
    account_id, instrument_id, side, quantity, price, amount, fee, realised_pnl, executed_at, external_id, source
)
select
    $1::bigint, r.instrument_id, r.side, r.quantity, r.price, r.amount, r.fee, r.realised_pnl, r.executed_at,
    r.external_id, 'import'
from unnest(
    $2::bigint[], $3::text[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[], $8::numeric[],
    $9::timestamptz[], $10::text[]
) with ordinality as r (
    instrument_id, side, quantity, price, amount, fee, realised_pnl, executed_at, external_id, place
)
order by r.place
returning id, external_id
