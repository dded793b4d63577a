"""What all runs over samples share: batches, progress, saved state, interrupts, processes, failures.

Does not know what is measured.
"""

__all__ = ["failures", "interrupts", "loop", "processes", "progress", "settings", "state"]
