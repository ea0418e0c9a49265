select a.id, a.owner_name, a.currency, a.time_zone, coalesce(c.balance, 0) as cash
from accounts as a
left join cash as c on c.account_id = a.id
where a.id = $1
