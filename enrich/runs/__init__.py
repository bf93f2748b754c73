"""A whole job: it is compiled, everything it needs is opened, its rows are asked, its output is assembled and put in place."""
