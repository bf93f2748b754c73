"""What can be done beside a run: plan, check, preview, show, status, init, and looking after the ledger.

Each takes a configuration or a ledger and gives a result that the command line prints, in words or as JSON. Only a plan's
sample and a probe ask for a completion, and both say so.
"""
