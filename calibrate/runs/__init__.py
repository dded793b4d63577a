"""What all runs over samples share: batches, progress, saved state, interrupts, processes, failures.

Does not know what is measured.
"""
