"""The configuration: a YAML file, the environment and flags go in, a checked `Config` comes out.

Whatever is wrong with a configuration by itself is found here, before any file of the user's is opened.
"""
