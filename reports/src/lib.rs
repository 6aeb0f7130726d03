//! Facts to numbers, verdicts, charts, HTML, CSV and JSON.
