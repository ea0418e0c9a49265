select request_hash, response
from imports
where account_id = $1 and idempotency_key = $2
