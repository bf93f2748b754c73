"""What was asked, what was answered, what is in doubt: requests and raw answers go in, and come out as they were, or not at all.

A request is durable here before its first byte is sent, an answer before it is read; what was sent and answered stands under checksums.
SQLite and PostgreSQL keep the same rules (`rules.py`), each in statements of its own.
"""
