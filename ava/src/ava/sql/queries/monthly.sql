-- Months are those of the account's time zone; $2 and $3 are its local times, from inclusive, to exclusive.
with account as (
    select id, currency, time_zone
    from accounts
    where id = $1
),

months as (
    select
        date_trunc('month', t.executed_at at time zone (select time_zone from account))::date as month,
        count(*) as trades,
        coalesce(sum(t.amount) filter (where t.side = 'buy'), 0) as bought,
        coalesce(sum(t.amount) filter (where t.side = 'sell'), 0) as sold,
        sum(t.fee) as fees,
        coalesce(sum(t.realised_pnl), 0) as realised_pnl
    from trades as t
    where
        t.account_id = $1
        and t.executed_at >= ($2::timestamp at time zone (select time_zone from account))
        and t.executed_at < ($3::timestamp at time zone (select time_zone from account))
    group by 1
)

select a.currency, a.time_zone, m.*
from account as a
left join months as m on true
order by m.month
