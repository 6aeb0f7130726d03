//! A naive engine: one list of running requests, one list of waiting ones, every block and every
//! token counted one by one. Slow, obvious, and written without the engine's code.

use plimsoll_base::{ClassId, Span, Time};
use plimsoll_sim::engine::{Job, Note};
use plimsoll_sim::model::{Admission, EngineModel, StepCostSpec};

use crate::History;

const TICKS: u128 = 65_536;

#[derive(Clone, Debug)]
struct Request {
    job: Job,
    serial: usize,
    computed: u32,
    blocks: u32,
    delivered: u32,
    parted: Option<u128>,
    gap_max: u128,
    /// Tokens scheduled in this step.
    scheduled: u32,
    /// It has delivered a token since it last entered, and computes one token a step.
    decodes: bool,
}

impl Request {
    fn target(&self) -> u32 {
        self.job.prompt_tokens + self.delivered
    }
}

struct Naive<'a> {
    model: &'a EngineModel,
    running: Vec<Request>,
    waiting: Vec<Request>,
    free: u32,
    history: History,
    now: Time,
    /// Steps between the last that computed prompt tokens and the next.
    since_prefill: Option<u32>,
    /// What the next step feels of `after_long_prefill`, in 2⁻¹⁶.
    cold: i128,
    /// How long it has rested, in ns.
    idle: u64,
}

/// Runs all jobs to their end.
pub fn run(model: &EngineModel, jobs: &[(Time, Job)]) -> History {
    let mut naive = Naive {
        model,
        running: vec![],
        waiting: vec![],
        free: model.kv_blocks,
        history: History::default(),
        now: Time::ZERO,
        since_prefill: None,
        cold: 0,
        idle: 0,
    };
    let mut ticks: u128 = 0;
    let mut next = 0;
    loop {
        if naive.running.is_empty() && naive.waiting.is_empty() {
            let Some((at, _)) = jobs.get(next) else { return naive.history };
            ticks = ticks.max(u128::from(at.nanos()) * TICKS);
            naive.idle = at.nanos().saturating_sub(naive.now.nanos());
        }
        naive.now = Time::from_nanos(ticks.div_ceil(TICKS) as u64);
        while next < jobs.len() && jobs[next].0 <= naive.now {
            naive.arrive(jobs[next].1, next);
            next += 1;
        }
        naive.schedule();
        let step = naive.step_ticks();
        naive.idle = 0;
        ticks += step;
        naive.now = Time::from_nanos(ticks.div_ceil(TICKS) as u64);
        naive.deliver(step);
    }
}

impl Naive<'_> {
    fn note(&mut self, note: Note) {
        let now = self.now;
        self.history.events.push((now, note));
    }

    fn arrive(&mut self, job: Job, serial: usize) {
        let request = Request {
            job,
            serial,
            computed: 0,
            blocks: 0,
            delivered: 0,
            parted: None,
            gap_max: 0,
            scheduled: 0,
            decodes: false,
        };
        self.wait(request, false);
    }

    fn wait(&mut self, request: Request, in_front: bool) {
        let position = match self.model.admission {
            Admission::Fcfs if in_front => 0,
            Admission::Fcfs => self.waiting.len(),
            Admission::Priority => {
                let key = |r: &Request| (-i64::from(r.job.priority), r.serial);
                self.waiting.iter().filter(|other| key(other) < key(&request)).count()
            }
        };
        self.waiting.insert(position, request);
    }

    fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.model.block_tokens)
    }

    fn schedule(&mut self) {
        for request in &mut self.running {
            request.scheduled = 0;
        }
        let mut preempted = false;
        let mut index = 0;
        while index < self.running.len() {
            let spent: u32 = self.running.iter().map(|r| r.scheduled).sum();
            let budget = self.model.step_tokens_max - spent;
            let request = &self.running[index];
            let tokens = (request.target() - request.computed).min(budget);
            let need = self.blocks_for(request.computed + tokens) - request.blocks;
            if need <= self.free {
                self.free -= need;
                let request = &mut self.running[index];
                request.blocks += need;
                request.scheduled = tokens;
                index += 1;
                continue;
            }
            preempted = true;
            let victim = self.victim();
            if victim < index {
                index -= 1;
            }
            self.preempt(victim);
        }
        if !preempted {
            self.admit();
        }
    }

    fn victim(&self) -> usize {
        match self.model.admission {
            Admission::Fcfs => self.running.len() - 1,
            Admission::Priority => {
                let worst = self
                    .running
                    .iter()
                    .enumerate()
                    .max_by_key(|(_, r)| (-i64::from(r.job.priority), r.serial));
                worst.expect("somebody runs").0
            }
        }
    }

    fn preempt(&mut self, index: usize) {
        let mut request = self.running.remove(index);
        self.free += request.blocks;
        let note = Note::Preempted {
            key: request.job.key,
            lost_tokens: request.computed,
            delivered: request.delivered,
        };
        self.note(note);
        if request.decodes {
            request.parted = Some(u128::from(self.now.nanos()));
        }
        (request.blocks, request.computed, request.scheduled) = (0, 0, 0);
        request.decodes = false;
        self.wait(request, true);
    }

    fn admit(&mut self) {
        while self.running.len() < self.model.seats as usize && !self.waiting.is_empty() {
            let spent: u32 = self.running.iter().map(|r| r.scheduled).sum();
            let budget = self.model.step_tokens_max.saturating_sub(spent);
            let prompts = self.running.iter().any(|r| r.scheduled > 0 && !r.decodes);
            let whole = self.waiting[0].target();
            let tokens = if self.model.chunked_prefill {
                whole.min(budget)
            } else if whole <= budget || !prompts {
                whole
            } else {
                0
            };
            let need = self.blocks_for(tokens);
            if budget == 0 || tokens == 0 || need > self.free {
                return;
            }
            let mut request = self.waiting.remove(0);
            self.free -= need;
            request.blocks = need;
            request.scheduled = tokens;
            self.note(Note::Started { key: request.job.key });
            self.running.push(request);
        }
    }

    fn step_ticks(&mut self) -> u128 {
        let (mut prefill, mut pairs, mut sequences, mut context) = (0i128, 0i128, 0i128, 0i128);
        for request in &self.running {
            let computed = i128::from(request.computed);
            if request.decodes {
                sequences += 1;
                context += computed;
            } else {
                for token in 1..=i128::from(request.scheduled) {
                    prefill += 1;
                    pairs += computed + token;
                }
            }
        }
        let after = self.since_prefill.filter(|since| *since < 7);
        self.since_prefill = if prefill > 0 { Some(0) } else { after.map(|since| since + 1) };
        let cold = after.map_or(0, |_| self.cold);
        let part = |of: i128, half: i128| of * 65_536 / (of + half);
        self.cold = match prefill {
            0 => cold / 2,
            _ => part(prefill, 128).max(part(self.idle.into(), 60_000_000)).max(cold / 2),
        };
        match self.model.step_cost {
            StepCostSpec::Affine { terms, prefill_curve, sequence_curve } => {
                let tick = |nanos: f64| (nanos * TICKS as f64).round() as i128;
                let idle = |term: f64, half: u64| {
                    tick(term) * i128::from(self.idle) / i128::from(self.idle + half)
                };
                let sum = tick(terms.base)
                    + tick(terms.prefill_step) * i128::from(prefill > 0)
                    + tick(terms.mixed_step) * i128::from(prefill > 0 && sequences > 0)
                    + tick(terms.prefill) * prefill
                    + curve(prefill_curve.points(), prefill)
                    + curve(sequence_curve.points(), sequences)
                    + tick(terms.sequence) * sequences
                    + tick(terms.context) * context
                    + tick(terms.pair) * pairs
                    + after.map_or(0, |since| tick(terms.after_prefill) >> since)
                    + tick(terms.after_long_prefill) * cold / 65_536
                    + idle(terms.after_idle, 60_000_000)
                    + idle(terms.after_long_idle, 4_000_000_000);
                sum as u128
            }
            StepCostSpec::Polynomial { base, prefill: p, sequence: s, context: c } => {
                let fixed = |nanos: f64| (nanos * 4_294_967_296.0).round() as i128;
                let sum = fixed(base)
                    + fixed(p[0]) * prefill
                    + fixed(p[1]) * prefill * prefill
                    + fixed(s[0]) * sequences
                    + fixed(s[1]) * sequences * sequences
                    + fixed(c[0]) * context
                    + fixed(c[1]) * context * context;
                (sum >> 16).max(TICKS as i128) as u128
            }
        }
    }

    fn deliver(&mut self, step: u128) {
        let (decoding, computing): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|r| r.decodes);
        for request in decoding {
            self.deliver_one(request, step);
        }
        for request in computing {
            self.deliver_one(request, step);
        }
    }

    fn deliver_one(&mut self, mut request: Request, step: u128) {
        let decodes = request.decodes;
        let key = request.job.key;
        request.computed += request.scheduled;
        if request.computed < request.target() {
            self.running.push(request);
            return;
        }
        if !decodes {
            self.note(Note::Token { key });
        }
        let gap = match request.parted.take() {
            _ if decodes => Some(step),
            Some(parted) => Some((u128::from(self.now.nanos()) - parted) * TICKS),
            None => None,
        };
        if let Some(gap) = gap {
            self.pool(request.job.class, gap);
            request.gap_max = request.gap_max.max(gap);
        }
        request.delivered += 1;
        request.decodes = true;
        if request.delivered == request.job.output_tokens {
            self.free += request.blocks;
            let gap_max = Span::from_nanos((request.gap_max / TICKS) as u64);
            self.note(Note::Finished { key, gap_max });
        } else {
            self.running.push(request);
        }
    }

    fn pool(&mut self, class: ClassId, gap: u128) {
        *self.history.gaps.entry((class, gap as u64)).or_default() += 1;
    }
}

/// A curve at so many tokens, in ticks: the value at the point before, and a step for each token on.
fn curve(points: impl Iterator<Item = (u32, f64)>, tokens: i128) -> i128 {
    let mut all = vec![(0, 0)];
    all.extend(points.map(|(at, nanos)| (i128::from(at), (nanos * TICKS as f64).round() as i128)));
    if all.len() == 1 || tokens == 0 {
        return 0;
    }
    let pair = all.windows(2).find(|two| tokens <= two[1].0).unwrap_or(&all[all.len() - 2..]);
    let ((from, low), (to, high)) = (pair[0], pair[1]);
    let exact = low * (to - from) + (high - low) * (tokens - from);
    exact.div_euclid(to - from).max(0)
}
