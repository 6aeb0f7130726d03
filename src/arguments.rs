//! What can be written on the command line.

use std::path::PathBuf;

pub use crate::numbers::{Between, Percent, Replications, Window};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Simulate shared AI serving: who waits for whom, and how deep the ship may be loaded.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, objectives met or none stated; 1 run-time failure; \
    2 usage or input error; 3 objective missed; 4 inconclusive; 130 interrupted.")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a scenario; print a verdict and a table, write a report
    Run(RunOptions),
    /// Run a scenario once for each combination of values: grid, zip, list or random
    Sweep(SweepOptions),
    /// Put the shards of a sweep together
    Merge(MergeOptions),
    /// Compare policies or settings on the same load: differences, and how sure they are
    Compare(CompareOptions),
    /// Find the least hardware that keeps every objective, and how sure that is
    Plan(PlanOptions),
    /// Feed a decision log to a fresh allocator: does it decide the same again?
    Replay(ReplayOptions),
    /// Render the report of a decision log, as `run` does that of a scenario
    Report(ReportOptions),
    /// Compare two results: what differs, with intervals, and whether it is evidence
    Diff(DiffOptions),
    /// Look at a trace of requests
    Trace(TraceOptions),
    /// Read a scenario, a policy or a gateway file and say whether it holds together
    Check(CheckOptions),
    /// Stand in front of inference servers: an OpenAI-compatible gateway whose policy is the one
    /// that the simulator runs
    #[cfg(feature = "serve")]
    Serve(ServeOptions),
    /// Serve a scenario's engine model over HTTP, in real time: a GPU-less server to test against
    #[cfg(feature = "serve")]
    Backend(BackendOptions),
    /// Measure a real device and fit its step times: a profile that scenarios extend
    #[cfg(feature = "serve")]
    Calibrate(CalibrateOptions),
    /// Hold a simulation against a real device: the same requests and policies, live and simulated
    #[cfg(feature = "serve")]
    Validate(ValidateOptions),
    /// Print a commented scenario to start from
    Init(InitOptions),
    /// Explain a metric, a column or an error code; without a name, list them
    Explain {
        /// Such as `ttft`, `slo_attainment` or `P0102`
        name: Option<String>,
    },
    /// Print the JSON Schema of scenario files, gateway files, summary.json or sweep.json
    Schema {
        /// Which
        #[arg(value_enum, default_value_t = SchemaOf::Scenario)]
        of: SchemaOf,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Options of `run`.
#[derive(Args, Debug)]
pub struct RunOptions {
    /// A scenario file, or the name of a shipped one (`plimsoll init --list`)
    pub file: PathBuf,
    /// Where to write the report [default: plimsoll-out/SCENARIO]
    #[arg(long, value_name = "DIR", conflicts_with = "no_files")]
    pub out: Option<PathBuf>,
    /// Write no files, only print
    #[arg(long)]
    pub no_files: bool,
    /// Write no requests.csv (one row a request)
    #[arg(long)]
    pub no_requests: bool,
    /// Write requests.parquet and timeseries.parquet too: the rows of the CSV files, typed (needs a
    /// build with `--features parquet`)
    #[arg(long, conflicts_with = "no_files")]
    pub parquet: bool,
    /// Write every input of the allocator and every decision to decisions.plog, one file a
    /// replication (decisions-N.plog where there are more)
    #[arg(long, conflicts_with = "no_files")]
    pub decisions: bool,
    /// Write trace.json for Perfetto's viewer: what happened on every seat between two instants of
    /// the first replication, such as `15m..16m`
    #[arg(long, value_name = "FROM..TO", conflicts_with = "no_files")]
    pub trace: Option<Window>,
    /// Have another policy listen without acting and say how often it agrees: a policy file or a
    /// scenario whose classes have the same names
    #[arg(long, value_name = "OTHER")]
    pub shadow: Vec<PathBuf>,
    /// Independent runs, for intervals; `auto` runs as many as `--precision` takes
    #[arg(long, value_name = "N|auto", default_value = "1")]
    pub replications: Replications,
    /// With `--replications auto`: how near to its value every interval is to reach
    #[arg(long, value_name = "PART", default_value = "2%")]
    pub precision: Percent,
    /// With `--replications auto`: replications at most
    #[arg(long, value_name = "N", default_value_t = 400)]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub replications_max: u32,
    /// Seed of every random stream [default: the scenario's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads for replications [default: one a core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// Override a value of the file, such as `workload.chat.arrivals.rate="8/s"`
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// Exit with 0 even where an objective is missed or the result is inconclusive
    #[arg(long)]
    pub no_gate: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
    /// A template of your own for report.html; it may extend run.html or shell.html
    #[arg(long, value_name = "FILE")]
    pub page_template: Option<PathBuf>,
    /// A result folder to compare with: what differs is printed too
    #[arg(long, value_name = "FOLDER")]
    pub baseline: Option<PathBuf>,
}

/// Options of `diff`.
#[derive(Args, Debug)]
pub struct DiffOptions {
    /// A result folder of `run` or `report`, or its summary.json
    pub before: PathBuf,
    /// The one that is compared with it
    pub after: PathBuf,
    /// Where to write page, chart and JSON [default: nowhere]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// A template of your own for the page; it may extend study.html or shell.html
    #[arg(long, value_name = "FILE")]
    pub page_template: Option<PathBuf>,
}

/// Options of `compare`.
#[derive(Args, Debug)]
pub struct CompareOptions {
    /// A scenario file, or the name of a shipped one
    pub file: PathBuf,
    /// A policy: `own`, a `[policy.NAME]` of the file, a baseline (fcfs, priority, drr, vtc, sfq,
    /// aging), or a file or shipped scenario whose classes have the same names; the others are
    /// compared with the first
    #[arg(long, value_name = "POLICY")]
    pub policy: Vec<String>,
    /// Settings to compare, such as `pool.gpu.replicas=2,3`; several are combined
    #[arg(long, value_name = "PATH=VALUES")]
    pub vary: Vec<String>,
    /// Override a value of the file for all
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
    /// Pairs of runs; `auto` runs as many as `--precision` takes
    #[arg(long, value_name = "N|auto", default_value = "10")]
    pub replications: Replications,
    /// With `--replications auto`: how small every interval of a difference is to become, as a part
    /// of what it is the difference of
    #[arg(long, value_name = "PART", default_value = "2%")]
    pub precision: Percent,
    /// With `--replications auto`: replications at most
    #[arg(long, value_name = "N", default_value_t = 400)]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub replications_max: u32,
    /// Of more than two: with what probability the best is to be found
    #[arg(long, value_name = "PART", default_value = "95%")]
    pub confidence: Percent,
    /// Of more than two: what lead in the score (attainment, or a part of the mean latency) does
    /// not matter
    #[arg(long, value_name = "PART", default_value = "1%")]
    pub indifference: Percent,
    /// Of more than two: replications at most to find the best
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub select_max: u32,
    /// Seed of every random stream [default: the scenario's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads for runs [default: one a core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// Where to write page, charts and JSON [default: plimsoll-out/SCENARIO-compare]
    #[arg(long, value_name = "DIR", conflicts_with = "no_files")]
    pub out: Option<PathBuf>,
    /// Write no files, only print
    #[arg(long)]
    pub no_files: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
    /// A template of your own for the page; it may extend study.html or shell.html
    #[arg(long, value_name = "FILE")]
    pub page_template: Option<PathBuf>,
}

/// Options of `plan`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 found; 2 usage or input error; 3 nothing fits; 4 too close to \
    a limit to tell; 130 interrupted."
)]
pub struct PlanOptions {
    /// A scenario file, or the name of a shipped one
    pub file: PathBuf,
    /// What is to be least [default: cheapest; the fewest devices where no prices are known]
    #[arg(long, value_enum)]
    pub goal: Option<GoalOf>,
    /// Replicas to search, of each pool [default: those of [plan], or 1..64]
    #[arg(long, value_name = "FROM..TO")]
    pub replicas: Option<Between>,
    /// A pool whose replicas are sought, one or two [default: those of [plan], or all]
    #[arg(long, value_name = "NAME")]
    pub pool: Vec<String>,
    /// A policy to choose from; as for `compare` [default: own]
    #[arg(long, value_name = "POLICY")]
    pub policy: Vec<String>,
    /// With what confidence every objective must be kept
    #[arg(long, value_name = "PART", default_value = "95%")]
    pub confidence: Percent,
    /// How much more load than the scenario's to plan for
    #[arg(long, value_name = "PART", default_value = "0%")]
    pub headroom: Percent,
    /// How much the load grows a month
    #[arg(long, value_name = "PART")]
    pub growth: Option<Percent>,
    /// For how many months it grows
    #[arg(long, value_name = "N", default_value_t = 12, requires = "growth")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=120))]
    pub months: u32,
    /// Replicas of any one pool that may fail without harm: 1 plans for n − 1
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub spare: u32,
    /// The device of the price table that a replica is made of
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Devices that a replica takes
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub devices: u32,
    /// A table of prices and power of your own
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// Replications at most to judge one plan
    #[arg(long, value_name = "N", default_value_t = 48)]
    #[arg(value_parser = clap::value_parser!(u32).range(3..=96))]
    pub replications_max: u32,
    /// Searches with random numbers of their own: whether they agree is how sure the answer is
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub searches: u32,
    /// Look at no other loads: no safe load, no capacity curve
    #[arg(long)]
    pub no_curves: bool,
    /// Override a value of the file
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
    /// Seed of every random stream [default: the scenario's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads for runs [default: one a core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// Where to write page, charts and JSON [default: plimsoll-out/SCENARIO-plan]
    #[arg(long, value_name = "DIR", conflicts_with = "no_files")]
    pub out: Option<PathBuf>,
    /// Write no files, only print
    #[arg(long)]
    pub no_files: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// Exit with 0 even where nothing fits
    #[arg(long)]
    pub no_gate: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
    /// A template of your own for the page; it may extend study.html or shell.html
    #[arg(long, value_name = "FILE")]
    pub page_template: Option<PathBuf>,
}

/// What a plan makes least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GoalOf {
    /// The price an hour
    Cheapest,
    /// The number of devices
    Fewest,
}

impl From<GoalOf> for plimsoll_planner::Goal {
    fn from(goal: GoalOf) -> plimsoll_planner::Goal {
        match goal {
            GoalOf::Cheapest => plimsoll_planner::Goal::Cheapest,
            GoalOf::Fewest => plimsoll_planner::Goal::Fewest,
        }
    }
}

/// Options of `sweep`.
#[derive(Args, Debug)]
#[command(
    after_help = "What is varied on the command line is laid over the file's [sweep]. Exit codes: 0 \
    done, whatever the verdicts; 1 run-time failure; 2 usage or input error; 130 interrupted, what \
    is done is kept for --resume."
)]
pub struct SweepOptions {
    /// A scenario file, or the name of a shipped one
    pub file: PathBuf,
    /// Run every combination of these: `pool.gpu.replicas=1,2,4`; may be repeated
    #[arg(long, value_name = "PATH=VALUE,…")]
    pub vary: Vec<String>,
    /// Lists that advance together; may be repeated
    #[arg(long, value_name = "PATH=VALUE,…")]
    pub zip: Vec<String>,
    /// One cell: `policy.share=priority,pool.gpu.replicas=2`; may be repeated
    #[arg(long = "cell", value_name = "PATH=VALUE,…")]
    pub cells: Vec<String>,
    /// Draw at random: `PATH=1..8`, `PATH=1/s..8/s:log`, or `PATH=a,b`; may be repeated
    #[arg(long, value_name = "PATH=FROM..TO")]
    pub draw: Vec<String>,
    /// How many cells to draw [default: the file's, or 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub draws: Option<u32>,
    /// Seed of the draw [default: the file's, or 1]
    #[arg(long, value_name = "N")]
    pub draw_seed: Option<u64>,
    /// Override a value of the file in every cell
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
    /// Independent runs of each cell, for intervals [default: the file's, or 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub replications: Option<u32>,
    /// Seed of every random stream [default: the scenario's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads for cells and replications [default: one a core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// Where the results go [default: plimsoll-out/SCENARIO-sweep]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on where an earlier run of the same sweep was stopped or killed; begin where there was none
    #[arg(long)]
    pub resume: bool,
    /// Run only part I of N, into a folder of its own; `plimsoll merge` puts the parts together
    #[arg(long, value_name = "I/N")]
    pub shard: Option<plimsoll_planner::sweep::Shard>,
    /// List the cells and run nothing
    #[arg(long, conflicts_with_all = ["resume", "shard", "emit"])]
    pub dry_run: bool,
    /// Write a program that runs the shards on a cluster, and run nothing
    #[arg(long, value_enum, value_name = "ENGINE", conflicts_with_all = ["resume", "shard"])]
    pub emit: Option<Engine>,
    /// Shards of that program
    #[arg(long, value_name = "N", default_value_t = 16, requires = "emit")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub shards: u32,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
    /// A template of your own for the page; it may extend study.html or shell.html
    #[arg(long, value_name = "FILE")]
    pub page_template: Option<PathBuf>,
}

/// What runs shards on many machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Ray: a Python driver, one task a shard
    Ray,
}

/// Options of `merge`.
#[derive(Args, Debug)]
pub struct MergeOptions {
    /// The folders of all shards, or the folder that holds them
    #[arg(required = true)]
    pub folders: Vec<PathBuf>,
    /// Where the results go [default: the folder, if it is one; else plimsoll-out/SCENARIO-sweep]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// A template of your own for the page; it may extend study.html or shell.html
    #[arg(long, value_name = "FILE")]
    pub page_template: Option<PathBuf>,
}

/// Options of `trace`.
#[derive(Args, Debug)]
pub struct TraceOptions {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: TraceVerb,
}

/// What to do with a trace.
#[derive(Debug, Subcommand)]
pub enum TraceVerb {
    /// Say what load it is: arrivals, bursts, lengths, shared prefixes, and what it does not say
    Describe(DescribeOptions),
}

/// Options of `trace describe`.
#[derive(Args, Debug)]
pub struct DescribeOptions {
    /// An Azure CSV or Mooncake JSON lines, plain, .zst or .gz
    pub file: PathBuf,
    /// Where to write trace.json and the page trace.html [default: nothing is written]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What to print: sentences and tables, trace.json, or the lengths as CSV
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// A template of your own for the page; it may extend study.html or shell.html
    #[arg(long, value_name = "FILE")]
    pub page_template: Option<PathBuf>,
}

/// Options of `replay`.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 the same decisions; 1 a decision differs; 2 the log or the \
    policy cannot be read.")]
pub struct ReplayOptions {
    /// A decision log (`plimsoll run FILE --decisions`)
    pub log: PathBuf,
    /// Print the log as JSON lines, one an input with its decisions, and replay nothing
    #[arg(long, conflicts_with = "policy")]
    pub show: bool,
    /// Compare with another policy instead: a policy file or a scenario whose classes have the
    /// same names. A counterfactual: requests run as long as they ran in the log
    #[arg(long, value_name = "OTHER")]
    pub policy: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = ReplayFormat::Human)]
    pub format: ReplayFormat,
}

/// Options of `report`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: those of `run`; 2 the log cannot be read, or its policy decides \
    otherwise now. A report of a log that was cut off is marked PARTIAL."
)]
pub struct ReportOptions {
    /// A decision log (`plimsoll run FILE --decisions`), a folder of logs (a report each), or the
    /// folder of a result (its table is printed again)
    pub log: PathBuf,
    /// Where to write the report [default: plimsoll-out/SCENARIO-log]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A template of your own for report.html; it may extend run.html or shell.html
    #[arg(long, value_name = "FILE")]
    pub page_template: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// Whether the policy of the log must decide again as it did
    #[arg(long, value_enum, default_value_t = PolicyCheck::On)]
    pub policy_check: PolicyCheck,
    /// Exit with 0 even where an objective is missed or the result is inconclusive
    #[arg(long)]
    pub no_gate: bool,
    /// A result folder to compare with: what differs is printed too
    #[arg(long, value_name = "FOLDER")]
    pub baseline: Option<PathBuf>,
}

/// Whether a log is compared with what its policy decides now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyCheck {
    /// It is; there is no report at a difference
    On,
    /// It is not: the log is believed
    Off,
}

/// What `replay` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReplayFormat {
    /// Sentences
    Human,
    /// One JSON object
    Json,
}

/// Options of `check`.
#[derive(Args, Debug)]
pub struct CheckOptions {
    /// A scenario, policy or gateway file, or the name of a shipped one
    pub file: PathBuf,
    /// Override a value of the file
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
    /// Print every effective value and where it comes from
    #[arg(long)]
    pub explain: bool,
}

/// Options of `backend`.
#[cfg(feature = "serve")]
#[derive(Args, Debug)]
#[command(after_long_help = backend_help())]
pub struct BackendOptions {
    /// The engine: a pool of a scenario file, or of a shipped scenario by its name
    #[arg(long, value_name = "FILE", default_value = "quickstart")]
    pub profile: PathBuf,
    /// Which pool [default: the first]
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// Where to listen; port 0 is a free one. The first line on stdout says where
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub listen: std::net::SocketAddr,
    /// The only model that it serves [default: whatever it is asked for]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// How much faster the engine's clock runs than the wall's
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub speed: f64,
    /// Whose metrics and priorities it speaks
    #[arg(long, value_enum, default_value_t = ServerKind::Vllm)]
    pub kind: ServerKind,
    /// Tokens a chunk of a stream, but for the first token, as vLLM's and SGLang's option of this
    /// name
    #[arg(long, value_name = "N", default_value_t = std::num::NonZeroU32::MIN)]
    pub stream_interval: std::num::NonZeroU32,
    /// What goes wrong, and with which part of all requests, such as `reset:0.1`; may be repeated
    /// (`--help` lists them)
    #[arg(long = "fault", value_name = "NAME[:PART]")]
    pub faults: Vec<plimsoll_probe::backend::FaultShare>,
    /// Seed of the draw of faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Tell what the engine is and its steps, at /plimsoll/engine and /plimsoll/steps
    #[arg(long)]
    pub tell_steps: bool,
}

/// Options of `serve`.
#[cfg(feature = "serve")]
#[derive(Args, Debug)]
pub struct ServeOptions {
    /// A gateway file, or `gateway`, the shipped one (`plimsoll init --template gateway`)
    pub file: PathBuf,
    /// Set a value of the file: `--set gateway.listen=127.0.0.1:9000`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// How much to say on stderr; prompts and answers are never said
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
    /// How to say it
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,
    /// Threads that move bytes [default: one a core, at most 8]
    #[arg(long, value_name = "N")]
    pub threads: Option<std::num::NonZeroUsize>,
}

/// Options of `calibrate`.
#[cfg(feature = "serve")]
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 measured; 1 the device broke off; 2 it cannot be measured, or \
    is in use; 4 it is too noisy to fit; 130 interrupted, nothing written."
)]
pub struct CalibrateOptions {
    /// The device: the URL of an OpenAI-compatible server, or a small transformer in this process:
    /// `embedded`, on a core (a build with the feature `embedded`), or `embedded-cuda`, on a GPU
    /// (with the feature `cuda`)
    #[arg(long, value_name = "URL|embedded", required_unless_present = "from")]
    pub backend: Option<String>,
    /// Fit to a log of requests instead, JSON lines with vLLM's times: input_toks, output_toks,
    /// queued_ts, scheduled_ts, first_token_ts, last_token_ts
    #[arg(long, value_name = "LOG", conflicts_with_all = ["backend", "quick"])]
    #[arg(requires_all = ["seats", "step_tokens_max", "kv_tokens"])]
    pub from: Option<PathBuf>,
    /// In less than two minutes instead of fifteen
    #[arg(long)]
    pub quick: bool,
    /// Where to write the profile
    #[arg(long, value_name = "FILE", default_value = "profile.toml")]
    pub out: PathBuf,
    /// Whose server it is [default: what its metrics say]
    #[arg(long, value_enum)]
    pub kind: Option<ServerKind>,
    /// Which of its models [default: the only one]; of `embedded` a Llama, as a GGUF file or a folder
    /// with `config.json` and `*.safetensors` [default: random weights]
    #[arg(long, value_name = "NAME|PATH")]
    pub model: Option<String>,
    /// The environment variable that holds the server's API key
    #[arg(long, value_name = "NAME")]
    pub token_env: Option<String>,
    /// Sequences in a batch, where the server does not tell (vLLM's --max-num-seqs)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub seats: Option<u32>,
    /// Tokens a step, where the server does not tell (vLLM's --max-num-batched-tokens)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub step_tokens_max: Option<u32>,
    /// KV memory in tokens, where the server does not tell
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub kv_tokens: Option<u64>,
    /// Seed of the lengths of traffic
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// Options of `validate`.
#[cfg(feature = "serve")]
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 every judged number agrees; 1 the device broke off; 2 the scenario or \
    the device cannot be used: not there, in use, another model or engine than the profile's; 3 one \
    disagrees; 4 it cannot be told: too noisy, saturated, client too slow, profile out of range; 130 \
    interrupted, nothing written."
)]
pub struct ValidateOptions {
    /// A scenario file, or the name of a shipped one; its workloads are open loop
    pub file: PathBuf,
    /// The device: the URL of an OpenAI-compatible server, or a small transformer in this process:
    /// `embedded`, on a core (a build with the feature `embedded`), or `embedded-cuda`, on a GPU
    /// (with the feature `cuda`)
    #[arg(long, value_name = "URL|embedded")]
    pub backend: String,
    /// The device's profile, as `plimsoll calibrate` writes it; takes the place of the scenario's
    /// pool [default: what the scenario says, else profile.toml]
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// A policy to run, as often as wished: `own`, a `[policy.NAME]` of the file, a baseline or a
    /// file [default: own]
    #[arg(long, value_name = "NAME|FILE")]
    pub policy: Vec<String>,
    /// Loads to offer, as parts of the capacity at the device's present pace, such as `0.3,0.6,0.85`
    /// [default: what the scenario offers]
    #[arg(long, value_name = "PART,PART", value_delimiter = ',')]
    pub loads: Vec<Percent>,
    /// How often, each time with other arrivals; each is run live twice
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repetitions: u32,
    /// The error that is allowed
    #[arg(long, value_name = "PART", default_value = "10%")]
    pub within: Percent,
    /// Simulate with the profile as it is, though beside the runs the device is measured to have
    /// become faster or slower since
    #[arg(long)]
    pub as_calibrated: bool,
    /// Seed of arrivals and lengths [default: the scenario's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Override a value of the file, such as `run.duration="20s"`
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
    /// Where to write report, raw numbers and decision logs [default:
    /// plimsoll-out/SCENARIO-validate]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Whose server it is [default: what its metrics say]
    #[arg(long, value_enum)]
    pub kind: Option<ServerKind>,
    /// Which of its models [default: the only one]; of `embedded` a Llama, as a GGUF file or a folder
    /// with `config.json` and `*.safetensors` [default: random weights]
    #[arg(long, value_name = "NAME|PATH")]
    pub model: Option<String>,
    /// The environment variable that holds the server's API key
    #[arg(long, value_name = "NAME")]
    pub token_env: Option<String>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// Exit with 0 even where a number disagrees or cannot be told
    #[arg(long)]
    pub no_gate: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
    /// A template of your own for the page; it may extend study.html or shell.html
    #[arg(long, value_name = "FILE")]
    pub page_template: Option<PathBuf>,
}

/// How much a gateway says.
#[cfg(feature = "serve")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What is broken
    Error,
    /// And what is amiss: a backend that is gone, one that broke off
    Warn,
    /// And a line a request
    Info,
    /// And more
    Debug,
}

#[cfg(feature = "serve")]
impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> tracing::Level {
        match level {
            LogLevel::Error => tracing::Level::ERROR,
            LogLevel::Warn => tracing::Level::WARN,
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Debug => tracing::Level::DEBUG,
        }
    }
}

/// How a gateway says it.
#[cfg(feature = "serve")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

/// Whose metrics and priorities a backend speaks.
#[cfg(feature = "serve")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServerKind {
    /// A lower `priority` is more important
    Vllm,
    /// A higher `priority` is more important
    Sglang,
    /// Knows no priorities
    LlamaCpp,
}

/// The faults, and what a request may wish.
#[cfg(feature = "serve")]
fn backend_help() -> String {
    let mut help = String::from(
        "It answers /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models, /health, \
         /metrics,\nand /requests (the books of what came and how it ended). A word of the prompt \
         is a token.\n\nA request may wish, in headers or in words NAME:VALUE of its prompt:\n  \
         x-prompt-tokens  how long its prompt is\n  \
         x-output-tokens  how long the answer is, within max_tokens (default 16)\n  \
         x-fault          what goes wrong\n\nFaults:\n",
    );
    for fault in plimsoll_probe::backend::Fault::ALL {
        help += &format!("  {:12}  {}\n", fault.name(), fault.about());
    }
    help
}

/// Options of `init`.
#[derive(Args, Debug)]
pub struct InitOptions {
    /// Which shipped scenario to start from
    #[arg(long, value_name = "NAME", default_value = "quickstart")]
    pub template: String,
    /// List the shipped scenarios
    #[arg(long)]
    pub list: bool,
}

/// What to print on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Verdict, table, conservation line, what to do next
    Human,
    /// summary.json
    Json,
    /// The table as CSV
    Csv,
    /// The table as Markdown
    Md,
}

/// Which schema to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// Scenario files
    Scenario,
    /// Gateway files
    Gateway,
    /// summary.json
    Summary,
    /// sweep.json
    Sweep,
}
