"""When the next request may go, and what it may cost: limits that were told and what answers show go in, turns come out.

Told limits are kept; those that nobody told are looked for, and what a 429 means is found out before it slows anything.
"""
