"""The optimizer: facts, rules, checks, plan, apply, verify, roll back. Pure inside; what acts is named so."""
