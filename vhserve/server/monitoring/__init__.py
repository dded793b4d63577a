"""Accuracy of a server while it serves: a canary that asks it labelled questions, a shadow that compares its answers.

Both run in the API server's event loop, beside users' requests and behind them.
"""
