-- Rows of a file that are trades already. One look-up in the unique index for each, whatever the planner believes about
-- the size of a table that an import is just filling.
select t.external_id, i.symbol, t.side, t.quantity, t.price, t.fee, t.executed_at
from unnest($2::text[]) as asked (external_id)
cross join lateral (
    select *
    from trades
    where account_id = $1 and external_id = asked.external_id
    limit 1
) as t
inner join instruments as i on i.id = t.instrument_id
