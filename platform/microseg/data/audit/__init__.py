"""Look for what makes a score untrue: leaks between training and validation, and doubtful masks."""

from microseg.data.audit.checks import audit
from microseg.data.audit.findings import Finding, Level, Pair
from microseg.data.audit.groups import session_regex
from microseg.data.audit.page import page

__all__ = ["Finding", "Level", "Pair", "audit", "page", "session_regex"]
