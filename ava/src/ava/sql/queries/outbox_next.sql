-- The oldest events that nobody tells at this moment: several relays share the work and do not wait for each other.
select id, account_id, kind, payload, created_at
from outbox
where published_at is null
order by id
limit $1
for update skip locked
