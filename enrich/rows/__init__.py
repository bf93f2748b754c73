"""Rows through steps: batches and a ledger go in; each row's story is told, and its verdict comes out as columns.

A row has one verdict at each step, however it came about, and what a later step sees of an earlier one is that verdict.
"""
