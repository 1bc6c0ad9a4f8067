"""Looking into models: summaries, and taps on the layers inside."""

from fdl.inspect.summary import Row, Summary, summary
from fdl.inspect.taps import attach
from fdl.inspect.watch import watch

__all__ = ["Row", "Summary", "attach", "summary", "watch"]
