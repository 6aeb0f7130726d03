//! What the batteries of the gateway share: a gateway and its backends in this process, behind real
//! sockets on loopback, a client that sees every byte, and the books of all three sides.

#![allow(dead_code, unused_imports, reason = "no battery uses all of it")]

mod books;
mod client;
mod scripted;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plimsoll_config::gateway::GatewayFile;
use plimsoll_driver::{Policy, ReloadError};
use plimsoll_gateway::{Gateway, Keys, Operations, Running};
use plimsoll_policy::Snapshot;
use plimsoll_policy::log::Header;
use plimsoll_probe::backend::{Backend, Fault, FaultShare, Faults, Kind, Limits, Settings};
use plimsoll_sim::model::{Admission, Affine, EngineModel, StepCostSpec};

pub use books::{Books, books};
pub use client::{Client, End, Head, Reply, chat, post, whole};
pub use plimsoll_probe::backend::Running as Probe;
pub use scripted::{Script, Scripted, Seen, answer};

pub const CHAT: &str = "/v1/chat/completions";

/// Two classes; what asks for `service_tier = "flex"` is batch.
pub const TWO_CLASSES: &str = r#"
[[class]]
name = "chat"
weight = 4
queue_max = 1000
time_to_live = "20s"
slo = { ttft_p95 = "1s" }

[[class]]
name = "batch"
weight = 1
queue_max = 1000
time_to_live = "60s"

[policy]
share = "fcfs"
classify = [
  { rule = "match", service_tier = "flex", class = "batch" },
  { rule = "match", class = "chat" },
]
"#;

/// A key whose word counts, in the file and in a request.
pub const TRUSTED: &str = r#"
[[tenant]]
name = "everybody"
[[key]]
name = "front"
tenant = "everybody"
trusted = true
sha256 = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"
"#;
pub const BEARER: &str = "authorization: Bearer key\r\n";

/// A gateway under test. Its decision log lies in a folder that goes with it.
pub struct Fixture {
    pub running: Running,
    pub address: SocketAddr,
    folder: tempfile::TempDir,
}

/// What a gateway file says beside `listen` and the backends.
pub struct Plan<'a> {
    /// Classes and `[policy]`.
    pub policy: &'a str,
    /// Lines of `[gateway]`.
    pub gateway: &'a str,
    /// Everything that comes after it: deadlines, keys, tenants.
    pub more: &'a str,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Plan { policy: TWO_CLASSES, gateway: "", more: "" }
    }
}

/// A `[[backend]]`.
pub fn backend(name: &str, addr: SocketAddr, more: &str) -> String {
    let more = if more.contains("seats") { more.to_owned() } else { format!("seats = 8\n{more}") };
    format!(
        "[[backend]]\nname = \"{name}\"\nurl = \"http://{addr}\"\nkind = \"vllm\"\n\
         kv_tokens = 65536\ncontext_max = 8192\nscrape_every = \"50ms\"\n{more}\n"
    )
}

impl Plan<'_> {
    pub fn text(&self, backends: &[String]) -> String {
        let Plan { policy, gateway, more } = self;
        let backends = backends.concat();
        format!(
            "schema_version = 1\nname = \"battery\"\n{policy}\n[gateway]\nlisten = \
             \"127.0.0.1:0\"\n{gateway}\n[gateway.log]\nfolder = \"decisions\"\n{more}\n{backends}"
        )
    }
}

/// The gateway of a text, whose relative paths begin in the folder.
pub fn read(text: &str, folder: &Path) -> GatewayFile {
    let path = folder.join("gateway.toml");
    std::fs::write(&path, text).expect("the folder can be written to");
    let file = plimsoll_config::read(&path, &[], &[]).and_then(|layered| layered.gateway_file());
    file.unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
}

impl Fixture {
    /// Starts a gateway and waits until all of its backends have joined.
    pub async fn start(plan: Plan<'_>, backends: &[String]) -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let text = plan.text(backends);
        let resources = text.matches("[[resource]]").count();
        Fixture::start_in(folder, &text, backends.len() + resources).await
    }

    /// The same, of a whole text in a folder in which its files lie.
    pub async fn start_in(folder: tempfile::TempDir, text: &str, wait_for: usize) -> Fixture {
        Fixture::start_with(folder, text, wait_for, |_| {}).await
    }

    /// The same, with something changed that no file says.
    pub async fn start_with(
        folder: tempfile::TempDir,
        text: &str,
        wait_for: usize,
        change: impl FnOnce(&mut GatewayFile),
    ) -> Fixture {
        let mut file = read(text, folder.path());
        file.admin.set_port(0);
        change(&mut file);
        let keys = Keys::look_up(&file.keys, &file.backends).expect("the keys are there");
        let gateway = Gateway { file, keys, observer: Box::new(()) };
        let running = gateway.operate(Operations::default()).await.expect("the gateway starts");
        let address = running.address();
        let fixture = Fixture { running, address, folder };
        fixture.backends_are(wait_for).await;
        fixture
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until so many backends, and resources that are leased, are there.
    pub async fn backends_are(&self, count: usize) {
        eventually(Duration::from_secs(5), "the backends are there", async || {
            self.snapshot().await.backends.len() == count
        })
        .await;
    }

    /// What the allocator holds.
    pub async fn snapshot(&self) -> Snapshot {
        let gate = self.running.gate();
        gate.ask(|inside| inside.allocator.snapshot()).await.expect("the allocator is there")
    }

    /// Requests that wait, and requests that run, as the allocator knows them.
    pub async fn held(&self) -> (u32, u32) {
        let classes = self.snapshot().await.classes;
        let queued = classes.iter().map(|class| class.queued).sum();
        (queued, classes.iter().map(|class| class.outstanding).sum())
    }

    /// Waits until the allocator holds nothing; returns how long that took.
    pub async fn is_empty_within(&self, patience: Duration) -> Duration {
        eventually(patience, "the allocator's books return to zero", async || {
            self.held().await == (0, 0)
        })
        .await
    }

    /// Another policy takes over.
    pub async fn reload(&self, config: plimsoll_policy::Config) -> Result<(), ReloadError> {
        let policy = Policy { config, header: Header::default() };
        self.running.gate().reload(policy, Vec::new()).await
    }

    /// Stops the gateway: every decision of its log must replay, and nothing be held at its end.
    pub async fn finish(self) -> Books {
        self.finish_in().await.0
    }

    /// The same, and the folder with the log.
    pub async fn finish_in(self) -> (Books, tempfile::TempDir) {
        self.is_empty_within(Duration::from_secs(5)).await;
        self.running.stop().await;
        let books = books(&self.folder.path().join("decisions"));
        assert_eq!(books.held(), 0, "{books:?}");
        (books, self.folder)
    }

    /// Drains it instead; whether all had ended.
    pub async fn drain(self, grace: Duration) -> (bool, Books) {
        let ended = self.running.drain(grace).await;
        (ended, books(&self.folder.path().join("decisions")))
    }
}

/// Waits until something holds; returns how long that took.
pub async fn eventually(patience: Duration, what: &str, holds: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

/// Steps of 10 ms at a speed of 1, and 10 µs a prompt token.
pub fn engine(seats: u32) -> EngineModel {
    EngineModel {
        seats,
        step_tokens_max: 512,
        kv_blocks: 4_096,
        block_tokens: 16,
        context_max: 8_192,
        chunked_prefill: true,
        admission: Admission::Fcfs,
        step_noise: None,
        step_cost: StepCostSpec::affine(Affine {
            base: 10e6,
            prefill: 10e3,
            sequence: 100e3,
            context: 100.0,
            ..Affine::default()
        }),
    }
}

/// A test backend of so many seats whose clock is so much faster.
pub fn probe(seats: u32, speed: f64) -> Probe {
    let settings = Settings { speed, ..Settings::default() };
    Backend::start(engine(seats), settings).expect("the backend starts")
}

/// Shares of faults.
pub fn faults(shares: &[(Fault, f64)], seed: u64) -> Faults {
    let share = |&(fault, probability): &(Fault, f64)| FaultShare { fault, probability };
    Faults::new(shares.iter().map(share).collect(), seed).expect("they are parts of all")
}

/// Runs a test on two threads, whatever the machine has.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    let result = runtime.block_on(test);
    runtime.shutdown_background();
    result
}

/// A part of some times, sorted on the way.
pub fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}
