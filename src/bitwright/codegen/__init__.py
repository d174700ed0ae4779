"""Generating C: planning, packing and printing an integer graph. exports/c.py puts the files together."""
