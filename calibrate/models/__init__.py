"""Models as transformers loads them: names, weights, prompts, and access to a decoder's attention.

Does not know scores, treatments or the files of datasets.
"""
