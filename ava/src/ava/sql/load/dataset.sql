select scale, seed, as_of, accounts, trades, loaded_at from ava_dataset
