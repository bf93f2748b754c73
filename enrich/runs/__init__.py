"""A whole job: a configuration goes in, a summary comes out, and an output that is replaced whole or stays as it was.

What is wrong is found before anything is sent, as far as that can be; what is paid for is kept, however a run ends.
"""
