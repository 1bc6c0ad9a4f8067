"""Looking into models: summaries, and taps on the layers inside."""

from fdl.inspect.summary import Row, Summary, summary
from fdl.inspect.taps import attach

__all__ = ["Row", "Summary", "attach", "summary"]
