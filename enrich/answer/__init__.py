"""What was answered: a completion goes in; text, typed values, a status and Arrow columns come out.

The same completion always gives the same answer: what is read here can be read again from the ledger, for nothing. Between two
values that both could be meant nothing is settled by chance.
"""
