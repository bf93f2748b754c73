"""Thin faces for engines that schedule and spread work: their objects go in, the engine's own way of saying results comes out.

Each is imported with its engine, from an extra; nothing here asks, pays or counts by itself.
"""
