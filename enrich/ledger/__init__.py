"""The ledger: what was asked, what was answered, what is in doubt; durable before it matters."""
