"""What can be done beside a run: plan, check, preview, status, init, and looking after the ledger."""
