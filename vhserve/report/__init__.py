"""The report: one self-contained page, and the same table for the terminal.

Knows results, profile and plans. Measures nothing and calls no server.
"""
