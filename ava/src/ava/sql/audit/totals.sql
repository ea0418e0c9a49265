select
    (select count(*) from trades) as trades,
    (select count(*) from orders) as orders,
    (select count(*) from imports) as imports
