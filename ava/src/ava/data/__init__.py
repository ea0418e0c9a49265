"""AVA's generated data: a market, its customers, three years of their trades, and the loader that stores them."""
