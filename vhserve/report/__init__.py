"""Reports: owns the self-contained pages, the demo's table for the terminal, and how head profiles are shown there.

Does not know how anything was measured, and calls no server.
"""

__all__ = ["analysis_page", "demo_page", "figures", "html", "profile_views", "rows", "summary"]
