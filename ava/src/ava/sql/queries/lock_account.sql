-- The first statement of every booking: from here to COMMIT the account is booked by one session at a time.
-- What depends on the lock is read by the next statement, which sees everything that was committed before it.
select c.balance, a.currency
from cash as c
inner join accounts as a on a.id = c.account_id
where c.account_id = $1
for update of c
