//! The bounds of the share rules over random loads: two hundred seeds a rule with true
//! predictions, two hundred with predictions wrong by up to four times either way. Flows come,
//! run dry and come back; the gap of two flows is looked for in every interval in which both have
//! work.
//!
//! The rules were broken by hand, one change at a time, and each change made a test here, in
//! `shares.rs` or among the storms of `reference.rs` fail (a star: one here):
//!
//! - counters: no lift on return *; charge only at the end *; settle nothing *; forget the
//!   weight *;
//! - start-time fair: the time stands still *; it goes back; a busy period never ends;
//! - stride: charge tokens *;
//! - dominant resource: add the times up *; forget the memory *, or the outputs *;
//! - deficit round robin: no carry *; savings outlast an empty queue *; forget the weight *; charge
//!   only at the end *;
//! - deficit longest prefix: credit is never used up *; savings outlast an empty queue; a grant
//!   forgives debts *; a debt of many rounds is let go after one *; cached tokens are charged *;
//!   outputs are free at dispatch *; forget the weight *; the shortest match first;
//! - accounts: forget everyone idle, or no one; take a workflow for a tenant; lose a flow when a
//!   class first steps aside.
//!
//! To try one again, make the change and run
//! `cargo test -p plimsoll-policy --no-fail-fast --lib --test fairness --test shares --test reference`.

mod support;

use plimsoll_base::{BackendId, End, RequestId, Span, Stream, StreamKey};
use plimsoll_policy::config::{Capacity, Class, Per, Share, TokenCost};
use plimsoll_policy::{Action, Allocator, Input, Used};
use support::{arrive, class, config, join, request, step};

const SEEDS: u64 = 200;
const FLOWS: usize = 3;
const STEPS: usize = 600;
const PRICE: TokenCost = TokenCost { prompt: 1, output: 2 };
const QUANTUM: u64 = 300;
const CAPACITY: Capacity = Capacity {
    prefill_tokens: 1_000_000,
    decode_tokens: 250_000,
    kv_tokens: 1_000,
    output_token: Span::from_micros(20),
};

/// A request: what is known of it, and what comes of it.
#[derive(Clone, Copy, Debug, Default)]
struct Job {
    flow: usize,
    prompt: u32,
    matched: u32,
    predicted: u32,
    used: Used,
}

/// What a job takes by a rule's own measure, of prompt, cached and output tokens.
type Measure = fn(u32, u32, u32) -> i64;

fn by_tokens(prompt: u32, _: u32, output: u32) -> i64 {
    i64::from(prompt) + 2 * i64::from(output)
}
fn by_uncached_tokens(prompt: u32, matched: u32, output: u32) -> i64 {
    by_tokens(prompt - matched, 0, output)
}
fn by_requests(_: u32, _: u32, _: u32) -> i64 {
    1
}
fn by_dominant_time(prompt: u32, _: u32, output: u32) -> i64 {
    let (prompt, output) = (i64::from(prompt), i64::from(output));
    (prompt * 1_000).max(output * 4_000).max((prompt + output) * output * 20)
}

/// Draws jobs; in phases of a hundred steps, of which each has its own flows at work.
struct Source {
    stream: Stream,
    active: [bool; FLOWS],
    is_exact: bool,
}

impl Source {
    fn below(&mut self, most: u64) -> u32 {
        self.stream.below(most) as u32
    }

    fn turn_phase(&mut self) {
        for flow in 0..FLOWS {
            self.active[flow] = self.below(3) > 0;
        }
        let one = self.below(FLOWS as u64) as usize;
        self.active[one] = true;
    }

    fn job(&mut self) -> Job {
        let flow = loop {
            let flow = self.below(FLOWS as u64) as usize;
            if self.active[flow] {
                break flow;
            }
        };
        // One flow's requests are four times as long.
        let prompt = (1 + self.below(200)) * if flow == 0 { 4 } else { 1 };
        let predicted = 4 + self.below(100);
        let matched = self.below(2) * self.below(u64::from(prompt));
        let mut used = Used { prompt_tokens: prompt, output_tokens: predicted };
        if !self.is_exact {
            used.prompt_tokens = self.below(u64::from(prompt)) + 1;
            used.output_tokens = predicted / 4 + self.below(u64::from(4 * predicted));
        }
        Job { flow, prompt, matched, predicted, used }
    }
}

/// Two flows and the service one is ahead of the other, per weight.
#[derive(Clone, Copy)]
struct Pair {
    flows: (usize, usize),
    /// The least and the greatest lead while both have had work.
    leads: Option<(f64, f64)>,
    worst: f64,
}

struct World {
    allocator: Allocator,
    measure: Measure,
    weights: Vec<u32>,
    jobs: Vec<Job>,
    running: Vec<RequestId>,
    waiting: [u32; FLOWS],
    service: [f64; FLOWS],
    pairs: Vec<Pair>,
    /// By flow, per weight: the largest charge, and the greatest error in flight at a time.
    largest: [f64; FLOWS],
    error: [f64; FLOWS],
}

impl World {
    fn new(share: Share, measure: Measure, source: &mut Source) -> World {
        let weights: Vec<u32> = (0..FLOWS).map(|_| 1 + source.below(9)).collect();
        let classes = weights.iter().map(|&weight| Class { weight, ..class() }).collect();
        let mut allocator = Allocator::new(config(share, classes)).expect("valid");
        step(&mut allocator, 0, join(0, 1 + source.below(6), 1_000_000_000));
        let pair = |flows| Pair { flows, leads: None, worst: 0.0 };
        World {
            allocator,
            measure,
            weights,
            jobs: Vec::new(),
            running: Vec::new(),
            waiting: [0; FLOWS],
            service: [0.0; FLOWS],
            pairs: [(0, 1), (0, 2), (1, 2)].map(pair).to_vec(),
            largest: [0.0; FLOWS],
            error: [0.0; FLOWS],
        }
    }

    fn per_weight(&self, job: &Job, cost: i64) -> f64 {
        cost as f64 / f64::from(self.weights[job.flow])
    }
    fn charged(&self, job: &Job) -> i64 {
        (self.measure)(job.prompt, job.matched, job.predicted)
    }
    /// What it turned out to take. Where cached tokens count, those computed are the others.
    fn taken(&self, job: &Job) -> i64 {
        (self.measure)(job.used.prompt_tokens, 0, job.used.output_tokens)
    }

    fn arrive(&mut self, job: Job) {
        let id = self.jobs.len() as u64;
        let hint = Input::Matched(RequestId(id), BackendId::first(0), job.matched);
        assert_eq!(step(&mut self.allocator, 0, hint), []);
        self.jobs.push(job);
        self.waiting[job.flow] += 1;
        let cost = self.per_weight(&job, self.charged(&job));
        self.largest[job.flow] = self.largest[job.flow].max(cost);
        self.look();
        let info = request(job.flow as u16, job.prompt, job.predicted);
        self.follow(arrive(id, info));
    }

    fn end(&mut self, at: usize) {
        let id = self.running.swap_remove(at);
        let job = self.jobs[id.0 as usize];
        let correction = self.taken(&job) - self.charged(&job);
        self.service[job.flow] += self.per_weight(&job, correction);
        self.look();
        self.follow(Input::Ended(id, End::Finished, job.used));
    }

    fn follow(&mut self, input: Input) {
        for decision in step(&mut self.allocator, 0, input) {
            assert!(matches!(decision.action, Action::Dispatch(..)));
            let job = self.jobs[decision.id.0 as usize];
            self.running.push(decision.id);
            self.waiting[job.flow] -= 1;
            self.service[job.flow] += self.per_weight(&job, self.charged(&job));
            self.look();
        }
        for flow in 0..FLOWS {
            let mine = self.running.iter().map(|id| &self.jobs[id.0 as usize]);
            let wrong = mine
                .filter(|job| job.flow == flow)
                .map(|job| self.per_weight(job, (self.taken(job) - self.charged(job)).abs()));
            self.error[flow] = self.error[flow].max(wrong.sum());
        }
    }

    /// Takes the leads of the moment into account.
    fn look(&mut self) {
        for pair in &mut self.pairs {
            let (f, g) = pair.flows;
            if self.waiting[f] == 0 || self.waiting[g] == 0 {
                pair.leads = None;
                continue;
            }
            let lead = self.service[f] - self.service[g];
            let (least, most) = pair.leads.unwrap_or((lead, lead));
            let (least, most) = (least.min(lead), most.max(lead));
            pair.leads = Some((least, most));
            pair.worst = pair.worst.max(most - least);
        }
    }
}

/// Runs a seed and gives back the gaps that were found.
fn run(share: &Share, measure: Measure, seed: u64, is_exact: bool) -> World {
    let key = StreamKey { seed, replication: 0, name: "fairness", entity: 0 };
    let mut source = Source { stream: Stream::new(key), active: [true; FLOWS], is_exact };
    let mut world = World::new(share.clone(), measure, &mut source);
    for number in 0..STEPS {
        if number % 100 == 99 {
            source.turn_phase();
        }
        // What comes in a phase is a little more than what goes.
        let comes = source.below(100) < 54;
        if comes || world.running.is_empty() {
            let job = source.job();
            let is_free = matches!(share, Share::DeficitLongestPrefix { .. });
            let cached = if is_exact && is_free { job.matched } else { 0 };
            let prompt_tokens = job.used.prompt_tokens - cached;
            let used = Used { prompt_tokens, ..job.used };
            world.arrive(Job { used, ..job });
        } else {
            let at = source.below(world.running.len() as u64) as usize;
            world.end(at);
        }
    }
    world
}

/// What the gap of two flows may be.
type Bound = fn(&World, usize, usize) -> f64;

/// The largest charges of the two, and twice the errors of the two in flight.
fn of_both(world: &World, f: usize, g: usize) -> f64 {
    world.largest[f] + world.largest[g] + 2.0 * (world.error[f] + world.error[g])
}

fn holds(share: Share, measure: Measure, bound: Bound) {
    let mut near = 0;
    for seed in 0..SEEDS {
        for is_exact in [true, false] {
            let world = run(&share, measure, seed, is_exact);
            assert!(!is_exact || world.error == [0.0; FLOWS]);
            for Pair { flows: (f, g), worst, .. } in &world.pairs {
                let bound = bound(&world, *f, *g) + 1e-3;
                assert!(
                    *worst <= bound,
                    "seed {seed}, flows {f} and {g}, exact {is_exact}: {worst} > {bound}",
                );
                near += usize::from(is_exact && *worst > 0.4 * bound);
            }
        }
    }
    // A bound that nothing comes near proves nothing.
    assert!(near > 20, "only {near} gaps came near the bound");
}

#[test]
fn virtual_token_counter() {
    let share = Share::VirtualTokenCounter { per: Per::Class, cost: PRICE };
    // A flow begins again where the least of all stands, so the errors of all count.
    holds(share, by_tokens, |world, f, g| {
        2.0 * (world.largest[f].max(world.largest[g]) + world.error.iter().sum::<f64>())
    });
}

#[test]
fn start_time_fair() {
    holds(Share::StartTimeFair { per: Per::Class, cost: PRICE }, by_tokens, of_both);
}

#[test]
fn stride() {
    holds(Share::Stride { per: Per::Class }, by_requests, of_both);
}

#[test]
fn dominant_resource() {
    let share = Share::DominantResource { per: Per::Class, capacity: CAPACITY };
    holds(share, by_dominant_time, of_both);
}

#[test]
fn deficit_round_robin() {
    let share = Share::DeficitRoundRobin { per: Per::Class, quantum: QUANTUM, cost: PRICE };
    holds(share, by_tokens, |world, f, g| QUANTUM as f64 + of_both(world, f, g));
}

#[test]
fn deficit_longest_prefix() {
    let share = Share::DeficitLongestPrefix { per: Per::Class, quantum: QUANTUM, cost: PRICE };
    holds(share, by_uncached_tokens, |world, f, g| 2.0 * QUANTUM as f64 + of_both(world, f, g));
}
