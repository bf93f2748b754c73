"""`python -m enrich.cli` is `beatra-enrich`."""

from enrich.cli.program import program

if __name__ == "__main__":
    program()
