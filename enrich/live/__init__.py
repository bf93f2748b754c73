"""The live page: what a run does, in a browser on the same machine, while it goes on.

Figures come from where the progress display has them, of a run elsewhere from its note in the ledger; texts of requests come
from the ledger, a few of the newest at a time. The page listens on loopback alone, under a random token, and changes
nothing but one thing: it can stop its own run in good order.
"""
