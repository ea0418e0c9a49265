-- Runs under the service's own role: ava_account may not read tokens.
select account_id
from api_tokens
where token_sha256 = $1 and revoked_at is null and (expires_at is null or expires_at > now())
