-- No key was used twice in an account.
with keys as (
    select account_id, 'trade key ' || idempotency_key as subject from trades where idempotency_key is not null
    union all
    select account_id, 'external id ' || external_id from trades where external_id is not null
    union all
    select account_id, 'order key ' || idempotency_key from orders
    union all
    select account_id, 'import key ' || idempotency_key from imports
)
select account_id, subject, 'once' as expected, format('%s times', count(*)) as found, count(*) over () as total
from keys
group by account_id, subject
having count(*) > 1
order by account_id, subject
limit $1
