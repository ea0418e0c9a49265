-- In the same transaction as the rows it counts: a run that was killed is taken up exactly where it was committed.
insert into imports (account_id, idempotency_key, request_hash, mode, response)
values ($1, $2, $3, $4, $5::jsonb)
on conflict (account_id, idempotency_key) do update set response = excluded.response
