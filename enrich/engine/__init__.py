"""Requests go in, each ends exactly once: claimed in the ledger, sent when the pace allows, retried, settled.

It knows the ledger and the client only as protocols.
"""
