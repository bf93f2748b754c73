"""What an answer must be: a JSON Schema or a pydantic model goes in; Arrow columns and a check of values come out.

The schema that is sent is the one that is checked.
"""
