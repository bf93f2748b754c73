"""For agents that use the program as a tool: a server of the Model Context Protocol, and the page that teaches the command line.

What enters is a call of a tool; what leaves is what the command line's ``--json`` says. Nothing is spent that its user did not
agree to, for these rows, on that budget.
"""
