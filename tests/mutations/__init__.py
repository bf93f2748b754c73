"""Variants of the program, most of them deliberately broken, to see that the tests would notice. Nothing else imports them."""
