//! Text, JSON lines, reports.
