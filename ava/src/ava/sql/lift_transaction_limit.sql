-- Takes the limit on this whole transaction off (17 and newer have it); each statement keeps its own.
select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout'
