select id, currency from instruments
