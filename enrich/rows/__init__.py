"""Rows through steps: each row's story is told here, how it ended is kept, and the output's columns are put together from that."""
