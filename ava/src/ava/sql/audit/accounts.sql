-- Sums as text: exact, and read faster than numeric.
select a.id, a.currency, c.balance::text, coalesce(m.total, 0.00)::text as moved, coalesce(m.movements, 0) as movements
from accounts as a
left join cash as c on c.account_id = a.id
left join (
    select account_id, sum(amount) as total, count(*) as movements from cash_movements group by account_id
) as m on m.account_id = a.id
where a.id > $1
order by a.id
limit $2
