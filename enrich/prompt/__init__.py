"""What is asked: a row and a step's templates go in; body bytes, a fingerprint and an idempotency key come out.

A prompt is a function of its row alone; data are never compiled.
"""
