//! The kernel alone: the agenda's hold operation, and a queue through agenda and station.
//!
//! `cargo bench --bench kernel`; times are a hold (pop the earliest event, schedule another) and a
//! customer (an arrival and a completion).

mod scenario;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use plimsoll_base::{Span, Stream, StreamKey, Time};
use plimsoll_sim::kernel::{Agenda, Entry, Rank, Station, World, advance};

fn stream(name: &str) -> Stream {
    Stream::new(StreamKey { seed: 1, replication: 0, name, entity: 0 })
}

/// Drawn beforehand, so that the bench does not measure the drawing.
fn gaps() -> Vec<Span> {
    let mut random = stream("gaps");
    (0..1 << 12).map(|_| Span::from_secs_f64(random.exponential())).collect()
}

fn hold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("agenda-hold");
    let gaps = gaps();
    for pending in [4, 100, 10_000] {
        let mut agenda = Agenda::new();
        for entity in 0..pending {
            let at = Time::ZERO + gaps[entity % gaps.len()];
            agenda.schedule(at, Rank::Begin, entity);
        }
        let mut turn = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("pending-{pending}"), |bencher| {
            bencher.iter(|| {
                let (now, entity) = agenda.pop().expect("as many events as before");
                turn = (turn + 1) % gaps.len();
                agenda.schedule(now + gaps[turn], Rank::Begin, entity);
                entity
            });
        });
    }
    group.finish();
}

enum Event {
    Arrival,
    Completion,
}

/// M/M/1 at 80 % load.
struct Queue {
    station: Station<()>,
    gaps: Stream,
    services: Stream,
}

impl Queue {
    fn begin(&mut self, now: Time, agenda: &mut Agenda<Event>) {
        let end = now + Span::from_secs_f64(0.8 * self.services.exponential());
        agenda.schedule(end, Rank::Completion, Event::Completion);
    }
}

impl World for Queue {
    type Event = Event;

    fn handle(&mut self, now: Time, event: Event, agenda: &mut Agenda<Event>) {
        let begins = match event {
            Event::Arrival => {
                let next = now + Span::from_secs_f64(self.gaps.exponential());
                agenda.schedule(next, Rank::Arrival, Event::Arrival);
                matches!(self.station.enter(now, ()), Entry::Begins(()))
            }
            Event::Completion => self.station.leave(now).is_some(),
        };
        if begins {
            self.begin(now, agenda);
        }
    }
}

const CUSTOMERS: u64 = 100_000;

fn markov(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("station");
    group.throughput(Throughput::Elements(CUSTOMERS));
    group.bench_function("m-m-1", |bencher| {
        bencher.iter(|| {
            let station = Station::new(1);
            let mut queue = Queue { station, gaps: stream("gaps"), services: stream("services") };
            let mut agenda = Agenda::new();
            agenda.schedule(Time::ZERO, Rank::Arrival, Event::Arrival);
            advance(&mut queue, &mut agenda, 2 * CUSTOMERS).now
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = scenario::short();
    targets = hold, markov
}
criterion_main!(benches);
