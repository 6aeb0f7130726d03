//! What a missing key could look like.

/// An example line for a key, if one helps.
pub(crate) fn of(key: &str) -> Option<&'static str> {
    EXAMPLES.iter().find(|(name, _)| *name == key).map(|(_, example)| *example)
}

const EXAMPLES: [(&str, &str); 36] = [
    ("draws", "draws = 20"),
    ("vary", "vary.pool.gpu.replicas = { min = 1, max = 8 }"),
    ("name", "name = \"chat\""),
    ("schema_version", "schema_version = 1"),
    ("rate", "rate = \"5/s\""),
    ("cv", "cv = 2.0"),
    ("gateway", "[gateway]` with `listen = \"127.0.0.1:8080\""),
    ("listen", "listen = \"127.0.0.1:8080\""),
    ("url", "url = \"http://10.0.0.1:8000\""),
    ("kv_tokens", "kv_tokens = 400000"),
    ("tenant", "tenant = \"search\""),
    ("folder", "folder = \"decisions\""),
    ("pieces", "pieces = [{ for = \"10m\", rate = \"3/s\" }]"),
    ("for", "for = \"10m\""),
    ("users", "users = 8"),
    ("think", "think = \"20s\""),
    ("process", "process = \"poisson\""),
    ("distribution", "distribution = \"lognormal\""),
    ("sigma", "sigma = 0.98"),
    ("max", "max = 8192"),
    ("min", "min = 1"),
    ("tokens", "tokens = 256"),
    ("points", "points = [[0.0, 10], [0.5, 120], [1.0, 4096]]"),
    ("path", "path = \"trace.csv.zst\""),
    ("replicas", "replicas = 1"),
    ("engine", "engine = { seats = 64, step_tokens_max = 2048, kv_tokens = 100000 }"),
    ("seats", "seats = 64"),
    ("step_tokens_max", "step_tokens_max = 2048"),
    ("kind", "kind = \"affine\""),
    ("base", "base = \"8ms\""),
    ("provenance", "provenance = \"where the step-time numbers come from\""),
    ("rule", "rule = \"fcfs\""),
    ("class", "class = \"realtime\""),
    ("over_tokens", "over_tokens = 8192"),
    ("due_share", "due_share = 0.10"),
    (
        "step_time",
        "step_time = { kind = \"affine\", base = \"8ms\", prefill_token = \"40us\", sequence = \"20us\", context_token = \"10ns\" }",
    ),
];
