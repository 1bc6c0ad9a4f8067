"""Looking into models: summaries, taps on the layers inside, and steps that went wrong."""

from fdl.inspect.nonfinite import Finding, Report, examine
from fdl.inspect.summary import Row, Summary, summary
from fdl.inspect.taps import attach
from fdl.inspect.watch import watch

__all__ = ["Finding", "Report", "Row", "Summary", "attach", "examine", "summary", "watch"]
