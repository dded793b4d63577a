"""The demo: calibrate, plan, serve each arm in turn, measure them alike, and leave a report.

Strings the other parts together as a user would, with their commands; measures nothing by itself.
"""
