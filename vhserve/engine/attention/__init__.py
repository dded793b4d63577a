"""Attention under a plan: full and text-only heads side by side, over block tables without their null blocks.

Does not choose which heads these are.
"""
