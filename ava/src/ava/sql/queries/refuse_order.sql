-- A refusal is a final answer too: the same key gets it again.
insert into orders (
    account_id, idempotency_key, request_hash, instrument_id, symbol, side, quantity, limit_price, status, reason
)
values ($1, $2, $3, $4, $5, $6, $7, $8, 'rejected', $9)
