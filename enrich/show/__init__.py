"""What a person sees while it runs: counts go in; progress, bars in notebooks and logs come out.

Nothing here changes what is done, and a reader who goes away ends nothing.
"""
