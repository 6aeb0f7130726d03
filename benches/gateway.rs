//! What the gateway costs, against a direct connection in the same run: load generator, gateway and
//! backend share this process and its cores.
//!
//! `cargo bench --bench gateway` prints added times to first token at 1,000 streams a second, short
//! requests a second, memory a stream that is silent, and how many requests it holds queued; with
//! `-- streams`, `short`, `silent` or `queued` only that.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plimsoll_gateway::{Gateway, Keys, Running};
use plimsoll_probe::backend::{Backend, Fault, FaultShare, Faults, Limits, Settings};
use plimsoll_sim::model::{Admission, Affine, EngineModel, StepCostSpec};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Direct, through the gateway and through a relay take turns of a second, so that what else the
/// machine does befalls all.
const TURNS: u32 = 10;
/// Of every turn, what is sent in its first part of so many does not count: connections wake up.
const START: u32 = 10;
const TOKENS: u32 = 64;
const SILENT: usize = 1_000;
const QUEUED: usize = 10_000;

/// The word that makes this process one of clients.
const HOLD: &str = "hold";

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [word, address, ..] = &arguments[..]
        && word == HOLD
    {
        return hold(address);
    }
    // Cargo's tests run benches once, to see that they still work: this one needs a quiet machine.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let threads = |name| {
        tokio::runtime::Builder::new_multi_thread()
            .thread_name(name)
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    };
    // The load has threads of its own, so that what each side takes of the CPU can be told.
    let (gateway, load) = (threads("gateway"), threads("load"));
    let sides = Sides { gateway: gateway.handle().clone() };
    let named = |part| arguments.len() == 1 || arguments.iter().any(|argument| argument == part);
    load.block_on(async {
        if named("streams") {
            streams(&sides).await;
        }
        if named("short") {
            short_requests(&sides).await;
        }
        if named("silent") {
            silent_streams(&sides).await;
        }
        if named("queued") {
            queued(&sides).await;
        }
    });
}

/// Where the gateway runs.
struct Sides {
    gateway: tokio::runtime::Handle,
}

/// Seconds of CPU that threads of these names have taken: the load, the gateway, the backend.
fn cpu() -> [f64; 3] {
    let mut seconds = [0.0; 3];
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let Some((front, back)) = stat.rsplit_once(") ") else { continue };
        let ticks = back.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        let side = ["load", "gateway", "backend"].iter().position(|name| front.ends_with(name));
        if let Some(side) = side {
            // The kernel counts in hundredths of a second.
            seconds[side] += ticks.sum::<f64>() / 100.0;
        }
    }
    seconds
}

fn engine(seats: u32) -> EngineModel {
    EngineModel {
        seats,
        step_tokens_max: 65_536,
        kv_blocks: 1 << 20,
        block_tokens: 16,
        context_max: 65_536,
        chunked_prefill: true,
        admission: Admission::Fcfs,
        step_noise: None,
        step_cost: StepCostSpec::affine(Affine {
            base: 1e6,
            prefill: 10.0,
            sequence: 10.0,
            ..Affine::default()
        }),
    }
}

fn settings(faults: Faults) -> Settings {
    let limits = Limits { connections_max: 20_000, ..Limits::default() };
    Settings { faults, limits, ..Settings::default() }
}

async fn gateway(sides: &Sides, backend: SocketAddr, seats: usize) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    let text = format!(
        "schema_version = 1\nname = \"bench\"\n[[class]]\nname = \"chat\"\n[policy]\n\
         share = \"virtual-token-counter\"\nclassify = [{{ rule = \"match\", class = \"chat\" }}]\n\
         [gateway]\nlisten = \"127.0.0.1:0\"\n[[backend]]\nname = \"one\"\nkind = \"vllm\"\n\
         url = \"http://{backend}\"\nseats = {seats}\nkv_tokens = 16777216\ncontext_max = 65536\n\
         scrape_every = \"50ms\"\n"
    );
    std::fs::write(&path, text).expect("the folder can be written to");
    let file =
        plimsoll_config::read(Path::new(&path), &[], &[]).and_then(|read| read.gateway_file());
    let file = file.unwrap_or_else(|error| panic!("{}", error.render(false)));
    let gateway = Gateway { file, keys: Keys::default(), observer: Box::new(()) };
    let started = sides.gateway.spawn(gateway.start()).await;
    let running = started.expect("it does not panic").expect("it starts");
    tokio::time::sleep(Duration::from_millis(300)).await;
    running
}

/// What anything between the two costs on this machine: copies bytes and looks at none.
async fn relay(sides: &Sides, backend: SocketAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let listener = listener.into_std().expect("a socket");
    sides.gateway.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(backend).await.expect("somebody listens");
                for end in [&client, &server] {
                    end.set_nodelay(true).expect("it is a socket");
                }
                // Whoever hangs up ends it.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

fn request(tokens: u32, streams: bool) -> Vec<u8> {
    let body = format!(
        "{{\"model\":\"any\",\"stream\":{streams},\"max_tokens\":{tokens},\
         \"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}"
    );
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends a request and reads until what ends the answer; when the first byte of the body came.
async fn ask(stream: &mut TcpStream, request: &[u8], end: &[u8]) -> Duration {
    let sent = Instant::now();
    stream.write_all(request).await.expect("it is read");
    let (mut read, mut first) = (Vec::with_capacity(4_096), None);
    loop {
        // What was looked through before matters no more, but for an end that is cut in two.
        read.drain(..read.len().saturating_sub(end.len()));
        let count = stream.read_buf(&mut read).await.expect("it answers");
        assert!(count > 0, "it broke off: {}", String::from_utf8_lossy(&read));
        if first.is_none() && read.windows(5).any(|part| part == b"data:") {
            first = Some(sent.elapsed());
        }
        if read.windows(end.len()).any(|part| part == end) {
            return first.unwrap_or_else(|| sent.elapsed());
        }
    }
}

/// An open loop to an address: its connections, the times to first token of each turn, and the CPU that
/// the load, the gateway and the backend have taken meanwhile.
struct Loop {
    address: SocketAddr,
    /// Those used longest ago first: none is idle long enough to be closed.
    kept: Arc<Mutex<VecDeque<TcpStream>>>,
    times: Vec<Vec<Duration>>,
    cpu: [f64; 3],
}

impl Loop {
    fn new(address: SocketAddr) -> Loop {
        Loop { address, kept: Arc::default(), times: Vec::new(), cpu: [0.0; 3] }
    }

    /// Goes on for a second.
    async fn turn(&mut self, rate: u32) {
        let before = cpu();
        let request: Arc<[u8]> = request(TOKENS, true).into();
        let began = tokio::time::Instant::now();
        let mut tasks = Vec::new();
        for number in 0..rate {
            tokio::time::sleep_until(began + Duration::from_secs(1) * number / rate).await;
            let (kept, request) = (Arc::clone(&self.kept), Arc::clone(&request));
            let address = self.address;
            tasks.push(tokio::spawn(async move {
                let one = kept.lock().expect("nobody panics while it is held").pop_front();
                let mut stream = match one {
                    Some(stream) => stream,
                    None => TcpStream::connect(address).await.expect("somebody listens"),
                };
                stream.set_nodelay(true).expect("it is a socket");
                let first = ask(&mut stream, &request, b"[DONE]\n\n\r\n0\r\n\r\n").await;
                kept.lock().expect("nobody panics while it is held").push_back(stream);
                first
            }));
        }
        let mut times = Vec::new();
        for task in tasks {
            times.push(task.await.expect("it does not panic"));
        }
        times.drain(..(rate / START) as usize);
        times.sort_unstable();
        self.times.push(times);
        for ((sum, after), before) in self.cpu.iter_mut().zip(cpu()).zip(before) {
            *sum += after - before;
        }
    }

    /// A quantile of each turn, in ms.
    fn quantiles(&self, part: f64) -> Vec<f64> {
        let one =
            |times: &Vec<Duration>| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e3;
        self.times.iter().map(one).collect()
    }
}

/// The least, the median and the most.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// With a chunk a token, and with chunks of as many as engines under load are told to send at once
/// (`--stream-interval`).
async fn streams(sides: &Sides) {
    for (interval, rate) in [(8, 1_000), (1, 250)] {
        let settings = Settings { stream_interval: interval, ..settings(Faults::default()) };
        let backend = Backend::start(engine(4096), settings).expect("it starts");
        let running = gateway(sides, backend.addr, 4096).await;
        let relay = relay(sides, backend.addr).await;
        let mut loops = [backend.addr, running.address(), relay].map(Loop::new);
        for _ in 0..TURNS {
            for one in &mut loops {
                one.turn(rate).await;
            }
        }
        println!(
            "{rate} streams/s of {TOKENS} tokens in chunks of {interval}, time to first token: the \
             median of {TURNS} turns of a second (the least and the most)"
        );
        for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            let [direct, gateway, relay] = loops.each_ref().map(|one| one.quantiles(part));
            let added = |other: &[f64]| {
                let more = other.iter().zip(&direct).map(|(other, direct)| other - direct);
                let [least, median, most] = spread(more.collect());
                format!("{median:.3} ms ({least:.3} to {most:.3})")
            };
            println!(
                "  {name}: direct {:.2} ms; the gateway adds {}, a relay that copies bytes {}",
                spread(direct.clone())[1],
                added(&gateway),
                added(&relay)
            );
        }
        for (name, one) in ["direct", "gateway", "relay"].iter().zip(&loops) {
            let [load, gateway, backend] = one.cpu.map(|seconds| seconds / f64::from(TURNS));
            println!(
                "  cores busy, {name}: load {load:.2}, {} {gateway:.2}, backend {backend:.2}",
                if *name == "relay" { "relay" } else { "gateway" }
            );
        }
        running.stop().await;
    }
}

async fn closed_loop(address: SocketAddr, clients: usize, seconds: u64) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds);
    let clients = (0..clients).map(|_| {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            let request = request(1, false);
            let mut stream = TcpStream::connect(address).await.expect("somebody listens");
            stream.set_nodelay(true).expect("it is a socket");
            while Instant::now() < until {
                ask(&mut stream, &request, b"\"total_tokens\"").await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("it does not panic");
    }
    done.load(Ordering::Relaxed) as f64 / seconds as f64
}

async fn short_requests(sides: &Sides) {
    let backend = Backend::start(engine(4096), settings(Faults::default())).expect("it starts");
    let running = gateway(sides, backend.addr, 4096).await;
    let direct = closed_loop(backend.addr, 64, 5).await;
    let through = closed_loop(running.address(), 64, 5).await;
    println!("short requests/s, 64 clients: direct {direct:.0}, gateway {through:.0}");
    running.stop().await;
}

/// Resident memory of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

/// Streams that were begun and are silent.
async fn begin(address: SocketAddr) -> Vec<TcpStream> {
    let request = request(TOKENS, true);
    let mut streams = Vec::new();
    for _ in 0..SILENT {
        let mut stream = TcpStream::connect(address).await.expect("somebody listens");
        stream.write_all(&request).await.expect("it is read");
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    streams
}

async fn silent_streams(sides: &Sides) {
    let share = vec![FaultShare { fault: Fault::Stall, probability: 1.0 }];
    let faults = Faults::new(share, 1).expect("it is a part of all");
    let backend = Backend::start(engine(4096), settings(faults)).expect("it starts");
    let running = gateway(sides, backend.addr, 4096).await;
    let before = resident();
    let direct = begin(backend.addr).await;
    let between = resident();
    let through = begin(running.address()).await;
    let after = resident();
    let each = |from: u64, to: u64| to.saturating_sub(from) as f64 / SILENT as f64 / 1024.0;
    let (direct_each, through_each) = (each(before, between), each(between, after));
    println!(
        "memory a silent stream, client and backend included: direct {direct_each:.1} KiB, gateway \
         {through_each:.1} KiB"
    );
    drop((direct, through));
    running.stop().await;
}

/// Clients in a process of their own: one alone may not have files open for both sides.
async fn queued(sides: &Sides) {
    let share = vec![FaultShare { fault: Fault::Hang, probability: 1.0 }];
    let faults = Faults::new(share, 1).expect("it is a part of all");
    let backend = Backend::start(engine(1), settings(faults)).expect("it starts");
    let running = gateway(sides, backend.addr, 1).await;
    let bench = std::env::current_exe().expect("this bench");
    let mut clients = tokio::process::Command::new(bench);
    clients.args([HOLD, &running.address().to_string()]).stdin(Stdio::piped());
    let mut clients = clients.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it starts");
    let mut sent = String::new();
    let out = clients.stdout.as_mut().expect("it is piped");
    tokio::io::BufReader::new(out).read_line(&mut sent).await.expect("it says how many");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = running.gate().ask(|inside| {
        let state = inside.allocator.snapshot().classes[0];
        (state.queued, state.outstanding)
    });
    let (queued, outstanding) = held.await.expect("it runs");
    println!("of {} requests sent, {queued} wait and {outstanding} run", sent.trim());
    drop(clients);
    running.stop().await;
}

/// What the clients' process does: sends, says how many, and waits until nobody wants it any more.
fn hold(address: &str) {
    use std::io::{Read as _, Write as _};
    let request = request(1, false);
    let mut streams = Vec::new();
    while streams.len() <= QUEUED
        && let Ok(mut stream) = std::net::TcpStream::connect(address)
    {
        stream.write_all(&request).expect("it is read");
        streams.push(stream);
    }
    println!("{}", streams.len());
    let _ = std::io::stdin().read(&mut [0]);
}
