"""Rules, one file a group: facts -> recommendations with formula, reason and source; pure."""
