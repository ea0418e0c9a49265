-- Every trade that came by an order belongs to exactly one.
select t.account_id, format('trade %s', t.id) as subject, '1 order' as expected,
    format('%s orders', count(o.id)) as found, count(*) over () as total
from trades as t
left join orders as o on o.trade_id = t.id
where t.source = 'api'
group by t.id, t.account_id
having count(o.id) <> 1
order by t.id
limit $1
