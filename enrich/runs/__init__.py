"""A whole job: a configuration goes in, a summary comes out, and an output that is replaced whole or stays as it was.

Whatever is wrong is found before anything is sent; what is paid for is kept, however a run ends.
"""
