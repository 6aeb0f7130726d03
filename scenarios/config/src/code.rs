//! Stable codes of everything that can be wrong with the input.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $id:literal: $text:literal;)*) => {
        /// A kind of mistake. The id never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }
        impl Code {
            /// All codes in order.
            pub const ALL: &[Code] = &[$(Code::$name,)*];
            /// The stable id: `P0102`.
            pub const fn id(self) -> &'static str {
                match self { $(Code::$name => $id,)* }
            }
            /// A paragraph about the mistake and its cure.
            pub const fn explanation(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

/// The paragraph behind a code's id; `None` if there is no such code.
pub fn explain(id: &str) -> Option<&'static str> {
    let id = id.trim();
    Code::ALL.iter().find(|code| code.id().eq_ignore_ascii_case(id)).map(|code| code.explanation())
}

codes! {
    /// A file cannot be read.
    Unreadable = "P0001": "The file cannot be opened or is not UTF-8 text. A scenario is named by its path, or by `shipped:NAME` for one that comes with the program; `extends` is relative to the file that says it.";
    /// Not TOML.
    Syntax = "P0002": "The text does not follow the TOML grammar. Strings need quotes, tables are written [name], lists of tables [[name]], and a key may stand once in a table.";
    /// The schema version is missing or unknown.
    Version = "P0003": "Every scenario says `schema_version = 1`, so that a later program knows how to read it. A file with a newer version needs a newer program; nothing of it is guessed.";
    /// Files extend each other in a circle, or too deep.
    Extends = "P0004": "A file may extend one other, which may extend a third, up to 8 deep and never in a circle. Tables merge, lists are replaced, and lists of named tables merge by name.";
    /// An override cannot be applied.
    Override = "P0005": "`--set` takes a dotted path, `=` and a TOML value: `--set workload.chat.arrivals.rate=5/s`. A bare word or quantity is taken as a string. Elements of a list are named by number from 0, tables of a list also by their `name`.";
    /// A key that does not exist.
    UnknownKey = "P0101": "The table has no such key. Unknown keys are refused, because a misspelt key would otherwise silently leave its default in force. `plimsoll schema` prints all keys for editors.";
    /// A value of the wrong type.
    Type = "P0102": "The value has another type than the key takes: a string where a number belongs, a number where a table belongs. Quantities with a unit are strings: \"500ms\".";
    /// A key that must be there.
    Missing = "P0103": "The table lacks a key that has no default. The message says which; the marked table is where it belongs.";
    /// A number outside its range.
    Range = "P0104": "The number is outside the range that makes sense for the key. Counts are whole and not negative, weights at least 1, fractions from 0 to 1.";
    /// A quantity without a unit or with a wrong one.
    Unit = "P0105": "Quantities carry their unit: spans \"500ms\", \"2s\", \"15m\"; rates \"12/s\", \"90/min\"; memory \"80GiB\"; step-time coefficients \"8.2ms\", \"21ps\". A bare number is refused, because nobody can see whether it means seconds or milliseconds.";
    /// A name of a kind that does not exist.
    UnknownKind = "P0106": "The table chooses among a fixed set (an arrival process, a length distribution, a rule), and the chosen name is not in it.";
    /// A name that cannot be one.
    BadName = "P0107": "Names of classes, workloads, pools and tenants are 1 to 64 letters, digits, `-` or `_`, so that they can stand in dotted paths, file names and reports. Headers are named in lower case, environment variables by letters, digits and `_`.";
    /// A name given twice.
    Duplicate = "P0108": "Two tables of one list have the same name. Names identify their table in rules, overrides and reports.";
    /// A name that nothing defines.
    UnknownName = "P0201": "A class, workload or tenant is named that the file does not define. Classes are defined by [[class]], workloads by [[workload]], tenants by the workloads' `tenant` and `tenants` or by [[tenant]], API keys by [[key]].";
    /// A rate that is negative or zero.
    Rate = "P0202": "An arrival rate must be above 0. A piecewise rate may have pieces of 0, but not only such pieces; a workload that is off at first has a `start`.";
    /// A scenario lacks a workload, a pool or a class.
    Empty = "P0203": "A scenario needs at least one [[class]], one [[workload]] and one [[pool]]; a gateway one [[class]] and one [[backend]].";
    /// The warm-up eats the run.
    WarmUp = "P0204": "Requests that arrive during the warm-up are simulated and not measured. A warm-up as long as the run measures nothing.";
    /// Limits of an engine that contradict each other.
    Engine = "P0205": "An engine runs one token a step for each decoding sequence, so `step_tokens_max` is at least `seats`; `block_tokens` is a power of two from 1 to 256; the longest context fits the KV memory.";
    /// A request that no engine can hold.
    TooLarge = "P0206": "The longest prompt and the longest output that this workload can draw do not fit together into any pool: the request would be refused for ever. Lower the length's `max` or `output_cap`, or give an engine more KV memory and `context_max`.";
    /// A request that no classify rule matches.
    Unclassified = "P0207": "Some requests of the workload match no `classify` rule, so they have no class and would be refused. Rules are tried in order at every prompt length that the workload can draw; end the list with a rule without conditions, or let the workload claim a class and drop `classify`. Before a gateway only requests with a `trusted` key can claim a class.";
    /// Lengths that cannot be drawn.
    Lengths = "P0208": "A length distribution is contradictory: `min` above `max`, a mean not above 0, quantile points that fall or do not run from 0 to 1.";
    /// Keys that exclude each other, or need each other.
    Conflict = "P0209": "The table states two keys that exclude each other, or one that needs another which is not there.";
    /// Too many of something.
    TooMany = "P0210": "There are more tables of a kind than the program supports: 64 classes, 65,535 workloads and pools; 64 models and resources together, 4,096 backends and resources together; a sweep has at most 1,000,000 cells.";
    /// A rule reads what the backends do not tell.
    NoSignal = "P0211": "The rule reads what nobody tells, so it would silently do something else. Which part of a prompt a backend has cached is told neither by the simulated engine, which has no prefix cache, nor to a gateway, whose backends keep it to themselves. How long an output will be is known to a simulation only. How full backends are is read from their metrics, which a backend of kind `openai` has only where the file says so.";
    /// No address where one belongs.
    Address = "P0212": "A gateway listens at an IP address and a port, 127.0.0.1:8080 or [::1]:8080. A backend's URL is http:// or https://, a host and, if need be, a port and a path prefix that ends before /v1; it has no query, no fragment and no password. Paths begin with /.";
    /// A sweep without cells.
    NoCells = "P0213": "A sweep runs one cell for each combination of what it varies, so each list of values needs at least one, and something must be varied: under `[sweep.grid]`, `[sweep.zip]`, `[[sweep.list]]` or `[sweep.random]` of the file, or by `--vary`, `--zip`, `--cell` or `--draw` on the command line.";
    /// A sweep that contradicts itself.
    Sweep = "P0214": "A sweep varies each path in one place, and only what a run reads: not `schema_version` and not the sweep itself. Lists under `zip` advance together, so they are equally long. A range to draw from is `{ min = 1, max = 8 }`, both ends of one kind and with one unit; with `scale = \"log\"` it begins above 0.";
    /// The trace cannot be opened.
    TraceUnreadable = "P0301": "The trace file cannot be opened. Its path is relative to the scenario file that names it. Trace files do not come with the program.";
    /// The format of the trace is unknown.
    TraceFormat = "P0302": "The beginning of the file is neither an Azure LLM inference CSV (a header with TIMESTAMP, ContextTokens and GeneratedTokens) nor Mooncake JSON lines (objects with timestamp, input_length and output_length). Compression by zstd and gzip is detected.";
    /// A column is missing.
    TraceColumn = "P0303": "The header of the CSV file lacks a column, or a JSON row lacks a key. Columns are found by name, their order does not matter.";
    /// Not a number.
    TraceNumber = "P0304": "A token count or a timestamp in milliseconds must be a whole number that is not negative.";
    /// Not a timestamp.
    TraceTimestamp = "P0305": "A timestamp is written 2023-11-16 18:15:46.6805900, optionally with T between date and time and with Z or an offset such as +00:00 at the end.";
    /// Rows out of order.
    TraceUnsorted = "P0306": "A row is earlier than the row before it. Arrivals are replayed in the order of the file, so sort the file by its timestamp first.";
    /// A row ends too early.
    TraceTruncated = "P0307": "The row ends before its last field: the file was cut off, or the row was written by hand and lacks a field. Nothing is guessed; fetch the file again or remove the row.";
    /// Zero tokens.
    TraceZero = "P0308": "A request has at least one prompt token and one output token. A trace may hold failed requests with 0 of them; `drop = [\"zero-tokens\"]` leaves those rows out and counts them.";
    /// A row that no engine can hold.
    TraceTooLarge = "P0309": "Prompt and output of this row together exceed the longest context or the KV memory of every pool. `drop = [\"too-large\"]` leaves such rows out and counts them.";
    /// No rows.
    TraceEmpty = "P0310": "The trace has no row at all, or none between `from` and `until`. A run over nothing would report nothing, so it is refused.";
    /// The compressed stream is broken.
    TraceBroken = "P0311": "The compressed file cannot be decompressed to its end: it was cut off or damaged.";
    /// A line without end.
    TraceLine = "P0312": "A line is longer than 16 MiB, or is not UTF-8 text. The file is probably not a trace.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_explained() {
        let ids: std::collections::BTreeSet<&str> =
            Code::ALL.iter().map(|code| code.id()).collect();
        assert_eq!(ids.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(explain(code.id()), Some(code.explanation()));
        }
        assert_eq!(explain("P9999"), None);
    }
}
