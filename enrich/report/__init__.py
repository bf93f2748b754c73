"""The report: the ledger's log and the output's rows go in, one self-contained page comes out.

Nothing is loaded from elsewhere, and what came from outside is shown as text, never run.
"""
