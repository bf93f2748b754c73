"""The report: one self-contained page on the last run, from the ledger's log and the output's rows."""
