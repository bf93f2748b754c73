"""What every part may use: clocks, places where data lie, counts in words, event loops.

Nothing here knows of prompts, endpoints or runs.
"""
