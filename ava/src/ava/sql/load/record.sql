insert into ava_dataset (scale, seed, as_of, accounts, trades) values ($1, $2, $3, $4, $5)
returning scale, seed, as_of, accounts, trades, loaded_at
