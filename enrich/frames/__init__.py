"""Record batches and data frames go in, the same with the steps' columns come out: the door that accessors and engines share.

Rows keep their order and their index, the caller's columns are handed through as they are, and for who takes batches one
by one little is asked ahead.
"""
