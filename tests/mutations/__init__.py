"""Deliberately broken variants of the program, to see that the tests would notice. Nothing else imports them."""
