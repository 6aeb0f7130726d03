//! Scenario files and traces to simulator types.
