"""AVA, a trading backend on Magnus: positions, trades, imports and the monthly report."""
