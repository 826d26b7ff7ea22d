"""What people look at: one HTML file about a run, and contact sheets of datasets."""

from attentus.report.html import write_report

__all__ = ["write_report"]
