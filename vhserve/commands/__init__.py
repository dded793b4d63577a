"""The commands, a file for each: its flags as one pydantic model, and the order of its steps.

Owns no work of its own.
"""
