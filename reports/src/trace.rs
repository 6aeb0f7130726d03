//! `trace.json`: a stretch of a run for Perfetto's viewer, in the JSON format of Chrome's tracing.
//!
//! A process a backend with one track a seat, so that slices of a track never overlap; a process
//! "allocator" with the arrivals of each class and counters of who waits; a flow from each arrival to
//! each stretch that the request spends on a seat; a counter of the KV memory of each backend.
//!
//! Format: "Trace Event Format" (Google), the parts that Perfetto's importer documents: events `X`
//! (complete), `s`/`f` (flow), `C` (counter), `M` (metadata), times in microseconds.

use std::collections::BTreeMap;
use std::io::{self, Write};

use plimsoll_base::{
    BackendId, ClassId, Fact, Names, Observer, RequestId, RequestRecord, Span, Stage, Time,
};
use serde_json::{Value, json};

/// Events kept at most; a trace that reaches it says so.
const EVENTS_MAX: usize = 200_000;
/// The process of the allocator; backends follow.
const ALLOCATOR: u64 = 1;

/// On a seat.
#[derive(Clone, Copy, Debug)]
struct Seat {
    backend: BackendId,
    number: usize,
    arrived: Time,
    since: Time,
    /// Whether it had been thrown out of a batch before.
    again: bool,
}

/// Listens to one replication.
#[derive(Debug)]
pub struct TraceRecorder {
    names: Names,
    window: (Time, Time),
    events: Vec<Value>,
    left_out: u64,
    /// By backend slot: who sits where.
    seats: Vec<Vec<Option<RequestId>>>,
    running: BTreeMap<RequestId, Seat>,
    /// Those that were thrown out and come again.
    preempted: BTreeMap<RequestId, ()>,
}

impl TraceRecorder {
    /// Of what happens between two instants.
    pub fn new(names: &Names, window: (Time, Time)) -> TraceRecorder {
        TraceRecorder {
            names: names.clone(),
            window,
            events: Vec::new(),
            left_out: 0,
            seats: Vec::new(),
            running: BTreeMap::new(),
            preempted: BTreeMap::new(),
        }
    }

    fn is_within(&self, from: Time, to: Time) -> bool {
        to >= self.window.0 && from <= self.window.1
    }

    fn push(&mut self, event: Value) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        } else {
            self.left_out += 1;
        }
    }

    fn arrive(&mut self, now: Time, (id, class): (RequestId, Option<ClassId>), prompt_tokens: u32) {
        if !self.is_within(now, now) {
            return;
        }
        let row = class.map_or(self.names.classes.len(), ClassId::index);
        let name = class.map_or("unclassified".to_owned(), |class| self.names.class(class));
        self.push(json!({
            "ph": "X", "name": format!("{name} {}", id.0), "cat": "arrival", "pid": ALLOCATOR,
            "tid": row + 1, "ts": micros(now), "dur": 1.0,
            "args": { "request": id.0, "prompt_tokens": prompt_tokens },
        }));
        self.push(json!({
            "ph": "s", "name": "request", "cat": "request", "id": id.0, "pid": ALLOCATOR,
            "tid": row + 1, "ts": micros(now),
        }));
    }

    fn sit(&mut self, now: Time, (id, arrived): (RequestId, Time), backend: BackendId) {
        let slot = backend.index();
        if slot >= self.seats.len() {
            self.seats.resize(slot + 1, Vec::new());
        }
        let seats = &mut self.seats[slot];
        let free = seats.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            seats.push(None);
            seats.len() - 1
        });
        seats[number] = Some(id);
        let again = self.preempted.remove(&id).is_some();
        self.running.insert(id, Seat { backend, number, arrived, since: now, again });
    }

    /// A request leaves its seat: with a record because it is over, or for the reason that is given.
    fn rise(
        &mut self,
        now: Time,
        id: RequestId,
        (class, record): (Option<ClassId>, Result<&RequestRecord, &str>),
    ) {
        let Some(seat) = self.running.remove(&id) else { return };
        self.seats[seat.backend.index()][seat.number] = None;
        if !self.is_within(seat.since, now) {
            return;
        }
        let name = class.map_or("unclassified".to_owned(), |class| self.names.class(class));
        let (pid, tid) = (process(seat.backend), seat.number + 1);
        let args = match record {
            Err(reason) => json!({ "request": id.0, "ended": reason }),
            Ok(record) => json!({
                "request": id.0,
                "tenant": self.names.tenants.get(record.tenant.index()),
                "ended": format!("{:?}", record.outcome),
                "prompt_tokens": record.prompt_tokens,
                "output_tokens": record.output_tokens,
                "waited_ms": record.phases.queue.millis_f64(),
                "preemptions": record.preemptions,
            }),
        };
        self.push(json!({
            "ph": "X", "name": format!("{name} {}", id.0), "cat": name, "pid": pid, "tid": tid,
            "ts": micros(seat.since), "dur": duration(now - seat.since), "args": args,
        }));
        // A flow begins at an arrival, passes what was thrown out, and ends where the request does.
        let step = if record.is_ok() { "f" } else { "t" };
        if self.is_within(seat.arrived, seat.arrived) {
            self.push(json!({
                "ph": step, "bp": "e", "name": "request", "cat": "request", "id": id.0, "pid": pid,
                "tid": tid, "ts": micros(seat.since),
            }));
        }
        let first = record.ok().and_then(|record| record.first_token);
        for (part, from, to) in
            [("prefill", seat.since, first.unwrap_or(now)), ("decode", first.unwrap_or(now), now)]
        {
            // What a request that comes again computes is neither alone.
            if record.is_ok() && !seat.again && to > from && self.is_within(from, to) {
                self.push(json!({
                    "ph": "X", "name": part, "cat": part, "pid": pid, "tid": tid,
                    "ts": micros(from), "dur": duration(to - from),
                }));
            }
        }
    }

    fn count(&mut self, now: Time, (pid, name): (u64, &str), values: Value) {
        if self.is_within(now, now) {
            self.push(json!({
                "ph": "C", "name": name, "pid": pid, "ts": micros(now), "args": values,
            }));
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, out: &mut impl Write) -> io::Result<()> {
        let mut names = vec![named("process_name", (ALLOCATOR, 0), "allocator")];
        for (row, class) in self.names.classes.iter().enumerate() {
            names.push(named(
                "thread_name",
                (ALLOCATOR, row as u64 + 1),
                &format!("arrivals of {class}"),
            ));
        }
        for (slot, seats) in self.seats.iter().enumerate() {
            let pid = ALLOCATOR + 1 + slot as u64;
            names.push(named("process_name", (pid, 0), &format!("backend {slot}")));
            let seats = 1..=seats.len() as u64;
            names.extend(
                seats.map(|seat| named("thread_name", (pid, seat), &format!("seat {seat}"))),
            );
        }
        out.write_all(b"{\"displayTimeUnit\":\"ms\",\"otherData\":")?;
        let told = json!({ "writer": "plimsoll", "events_left_out": self.left_out });
        serde_json::to_writer(&mut *out, &told)?;
        out.write_all(b",\"traceEvents\":[\n")?;
        for (number, event) in names.iter().chain(&self.events).enumerate() {
            out.write_all(if number == 0 { b"" } else { b",\n" })?;
            serde_json::to_writer(&mut *out, event)?;
        }
        out.write_all(b"\n]}\n")
    }
}

fn named(what: &str, (pid, tid): (u64, u64), name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": pid, "tid": tid, "args": { "name": name } })
}

fn process(backend: BackendId) -> u64 {
    ALLOCATOR + 1 + backend.index() as u64
}

fn micros(time: Time) -> f64 {
    time.nanos() as f64 / 1e3
}

fn duration(span: Span) -> f64 {
    span.nanos() as f64 / 1e3
}

impl Observer for TraceRecorder {
    fn observe(&mut self, now: Time, fact: &Fact) {
        match fact {
            Fact::Arrived { id, class, prompt_tokens, .. } => {
                self.arrive(now, (*id, *class), *prompt_tokens);
            }
            Fact::Started { id, backend, arrived, .. } => self.sit(now, (*id, *arrived), *backend),
            Fact::Preempted { id, class, .. } => {
                self.rise(now, *id, (Some(*class), Err("preempted")));
                self.preempted.insert(*id, ());
            }
            Fact::Handed { id, class, stage, .. } => {
                if *stage == Stage::AwaitsMemory {
                    self.rise(now, *id, (Some(*class), Err("prompt computed")));
                }
            }
            Fact::Closed(record) => self.close(now, record),
            Fact::BackendSampled { backend, sample } => {
                let values = json!({ "blocks": sample.kv_blocks_used });
                self.count(now, (process(*backend), "KV blocks held"), values);
            }
            Fact::ClassSampled { class, sample } => {
                let name = format!("waiting: {}", self.names.class(*class));
                let values = json!({ "requests": sample.queued + sample.engine_waiting });
                self.count(now, (ALLOCATOR, &name), values);
            }
            Fact::Dispatched { .. }
            | Fact::Bound { .. }
            | Fact::Gaps { .. }
            | Fact::Alarmed(_)
            | Fact::Advised(_)
            | Fact::WarmedUp
            | Fact::ArrivalsEnded
            | Fact::RunEnded => {}
        }
    }

    fn close(&mut self, now: Time, record: &RequestRecord) {
        self.preempted.remove(&record.id);
        self.rise(now, record.id, (record.class, Ok(record)));
    }
}
