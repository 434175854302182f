"""One self-contained page of a run: what it found, to look at in any browser, without a connection."""

from commonweight.report.html.island import Overlaps
from commonweight.report.html.page import REPORT, Page, render, write_page
from commonweight.report.html.pictures import Picture

__all__ = ["REPORT", "Overlaps", "Page", "Picture", "render", "write_page"]
