//! Reading configuration files: spans, units, layering, errors; policy files.
