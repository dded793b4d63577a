"""Treats heads of a transformers model as serving does, and counts its right answers: the oracle of the engine.

Does not know which heads are worth treating.
"""
