"""vLLM's OpenAI server with a plan: start, limits, metrics, exit code.

Does not know how the engine serves the plan.
"""
