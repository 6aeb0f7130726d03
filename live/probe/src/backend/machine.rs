//! The engine, and who waits for which of its tokens.
//!
//! A batch of kind [`Explicit`] takes one step at a time, so at each boundary everybody who
//! decodes has one more token: the engine's notes say who decodes, and nothing else is needed to
//! tell tokens one by one.

use std::collections::BTreeMap;

use plimsoll_base::{BackendSample, ClassId, Time};
use plimsoll_sim::engine::{BatchShape, Engine, Explicit, Job, Note};
use plimsoll_sim::model::EngineModel;
use tokio::sync::watch;

use super::steps::StepBook;

/// A request as the engine sees it. Its lengths are at least 1 and fit the engine's context.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    /// Higher is more important.
    pub priority: i32,
}

/// An order, and where to count the tokens that are delivered for it. Nobody waits for them any
/// more when that channel is closed.
#[derive(Debug)]
pub(super) struct Work {
    pub order: Order,
    pub delivered: watch::Sender<u32>,
}

#[derive(Debug)]
struct Flight {
    delivered: watch::Sender<u32>,
    decodes: bool,
    /// Whether the engine was told that its client has left.
    left: bool,
}

impl Flight {
    fn deliver(&self) {
        self.delivered.send_modify(|tokens| *tokens += 1);
    }
}

/// The engine and its requests in flight.
#[derive(Debug)]
pub(super) struct Machine {
    engine: Engine<Explicit>,
    flights: BTreeMap<u32, Flight>,
    latest_key: u32,
    due: Option<Time>,
    /// When the step that runs began, and what it computes.
    running: Option<(Time, BatchShape)>,
    /// Where steps are written down.
    book: StepBook,
    /// Where it is told how full the engine is.
    publish: watch::Sender<BackendSample>,
    /// Kept for its memory.
    notes: Vec<Note>,
}

impl Machine {
    /// A machine, and how full it is: at any time no older than the tokens that are delivered.
    pub fn new(model: &EngineModel, book: StepBook) -> (Machine, watch::Receiver<BackendSample>) {
        let engine = Engine::new(model, 1);
        let (publish, sample) = watch::channel(engine.sample());
        let machine = Machine {
            engine,
            flights: BTreeMap::new(),
            latest_key: 0,
            due: None,
            running: None,
            book,
            publish,
            notes: Vec::new(),
        };
        (machine, sample)
    }

    /// When the step that runs is over.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// Takes all steps that are over by `now`, each at its own instant: a timer that is late makes
    /// tokens late, never the engine.
    pub fn catch_up(&mut self, now: Time) {
        while let Some(at) = self.due.take_if(|at| *at <= now) {
            self.engine.complete(at, &mut self.notes);
            // What is told comes before the tokens: whoever has them may ask at once.
            if let Some((began, shape)) = self.running.take() {
                self.book.add((began, at, shape));
            }
            self.publish();
            for flight in self.flights.values().filter(|flight| flight.decodes) {
                flight.deliver();
            }
            self.follow_notes();
            self.begin(at);
        }
    }

    /// Takes in a request.
    pub fn submit(&mut self, work: Work) {
        let Work { order, delivered } = work;
        let key = self.free_key();
        self.flights.insert(key, Flight { delivered, decodes: false, left: false });
        self.engine.submit(Job {
            key,
            class: ClassId(0),
            priority: order.priority,
            prompt_tokens: order.prompt_tokens,
            output_tokens: order.output_tokens,
        });
    }

    /// Cuts off, at the next boundary, whoever has left.
    pub fn cancel_left(&mut self, now: Time) {
        for (&key, flight) in &mut self.flights {
            if !flight.left && flight.delivered.is_closed() {
                flight.left = true;
                self.engine.cancel(key, now);
            }
        }
    }

    /// Begins a step if none runs, after everything else of this instant.
    pub fn begin(&mut self, now: Time) {
        if let Some(due) = self.engine.begin(now, &mut self.notes) {
            self.due = Some(due);
            self.running = Some((now, self.engine.shape()));
        }
        self.follow_notes();
        self.publish();
    }

    fn publish(&self) {
        self.publish.send_replace(self.engine.sample());
    }

    fn follow_notes(&mut self) {
        for note in self.notes.drain(..) {
            match note {
                Note::Token { key } => {
                    if let Some(flight) = self.flights.get_mut(&key) {
                        flight.decodes = true;
                        flight.deliver();
                    }
                }
                Note::Preempted { key, .. } => {
                    if let Some(flight) = self.flights.get_mut(&key) {
                        flight.decodes = false;
                    }
                }
                Note::Finished { key, .. } | Note::Cancelled { key, .. } => {
                    self.flights.remove(&key);
                }
                Note::Started { .. } | Note::Handed { .. } | Note::Gaps { .. } => {}
            }
        }
    }

    /// A key that nobody has.
    fn free_key(&mut self) -> u32 {
        loop {
            self.latest_key = self.latest_key.wrapping_add(1);
            if !self.flights.contains_key(&self.latest_key) {
                return self.latest_key;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Wake};

    use plimsoll_sim::model::{Admission, Affine, StepCostSpec};

    use super::*;

    /// Reads, in the very instant a token is delivered, how full the engine is said to be.
    struct Asker {
        sample: watch::Receiver<BackendSample>,
        heard: Mutex<Vec<(u64, u32)>>,
    }

    impl Wake for Asker {
        fn wake(self: Arc<Asker>) {
            let sample = *self.sample.borrow();
            self.heard.lock().expect("whole").push((sample.output_tokens, sample.running));
        }
    }

    #[test]
    fn what_is_told_is_no_older_than_a_token() {
        let model = EngineModel {
            seats: 2,
            step_tokens_max: 64,
            kv_blocks: 64,
            block_tokens: 16,
            context_max: 512,
            chunked_prefill: true,
            admission: Admission::Fcfs,
            step_noise: None,
            step_cost: StepCostSpec::affine(Affine { base: 1e6, ..Affine::default() }),
        };
        let (mut machine, sample) = Machine::new(&model, StepBook::default());
        let asker = Arc::new(Asker { sample, heard: Mutex::default() });
        let (delivered, mut tokens) = watch::channel(0);
        let order = Order { prompt_tokens: 3, output_tokens: 3, priority: 0 };
        machine.submit(Work { order, delivered });
        machine.begin(Time::ZERO);
        let waker = Arc::clone(&asker).into();
        while let Some(due) = machine.due() {
            tokens.mark_unchanged();
            let mut token = pin!(tokens.changed());
            assert!(token.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            machine.catch_up(due);
        }
        let heard = asker.heard.lock().expect("whole");
        assert_eq!(*heard, [(1, 1), (2, 1), (3, 0)]);
    }
}
