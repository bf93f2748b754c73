"""How far answers can be trusted, as numbers: agreement, scores against known values, and what chance leaves open.

Pure functions on counts and arrays; nothing here reads a file or asks anybody.
"""
