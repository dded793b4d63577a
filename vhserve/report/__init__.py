"""Reports: owns how self-contained pages are made, the analysis' page, and how profiles and plans look in a terminal.

Does not know how anything was measured, and calls no server.
"""

__all__ = ["analysis_page", "html", "plan_views", "profile_comparison", "profile_views"]
