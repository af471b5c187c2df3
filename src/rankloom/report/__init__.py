"""The HTML report of a run: curves, calibration, metrics."""

from rankloom.report.html import write_report

__all__ = ["write_report"]
