"""Datasets that samples are read from; each knows its own files, none knows a model."""
