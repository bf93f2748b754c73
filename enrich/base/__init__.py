"""What every part may use: clocks, places where data lie, counts in words, event loops, values and their texts.

Nothing here knows of prompts, endpoints or runs.
"""
