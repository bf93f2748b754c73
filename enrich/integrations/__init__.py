"""Thin faces for engines that schedule and spread work; each is imported with its engine, from an extra."""
