"""What is asked before a plan is served: how it reaches the engine, and what it does not go together with.

Does not build anything.
"""
