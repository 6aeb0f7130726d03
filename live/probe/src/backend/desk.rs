//! The thread that owns the engine, and how others ask it for something.
//!
//! It is a thread and no task: the runtime's timers go by whole milliseconds, which a step of three
//! cannot be measured with.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::{io, thread};

use plimsoll_base::BackendSample;
use plimsoll_sim::model::EngineModel;
use tokio::sync::watch;

use super::machine::{Machine, Order, Work};
use super::steps::StepBook;
use super::wall::WallClock;

/// What the engine's thread is told.
#[derive(Debug)]
enum Call {
    /// A request comes.
    Work(Work),
    /// One has left.
    Left,
}

/// Where requests are handed in.
#[derive(Debug)]
pub(super) struct Desk {
    intake: mpsc::Sender<Call>,
    sample: watch::Receiver<BackendSample>,
    book: StepBook,
    clock: WallClock,
}

impl Desk {
    /// Starts the thread that owns the engine; it ends with the desk.
    pub fn open(model: &EngineModel, speed: f64) -> io::Result<Desk> {
        let (intake, calls) = mpsc::channel();
        let book = StepBook::default();
        let (machine, sample) = Machine::new(model, book.clone());
        let clock = WallClock::start(speed);
        let body = move || drive(machine, clock, &calls);
        thread::Builder::new().name("engine".into()).spawn(body)?;
        Ok(Desk { intake, sample, book, clock })
    }

    /// Hands in a request; `None` if the engine is gone.
    pub fn submit(&self, order: Order) -> Option<Ticket> {
        let (delivered, tokens) = watch::channel(0);
        self.intake.send(Call::Work(Work { order, delivered })).ok()?;
        Some(Ticket { tokens, _bell: Bell(self.intake.clone()) })
    }

    /// The steps from a number on.
    pub fn steps(&self, after: u64) -> serde_json::Value {
        self.book.told(after, self.clock)
    }

    /// How full the engine is, as of its last step.
    pub fn sample(&self) -> BackendSample {
        *self.sample.borrow()
    }
}

/// A request's claim to its tokens. Dropped before they are all there, it takes the request back.
#[derive(Debug)]
pub(super) struct Ticket {
    tokens: watch::Receiver<u32>,
    /// Rings after `tokens` has been dropped: fields are dropped in their order.
    _bell: Bell,
}

impl Ticket {
    /// Waits for more tokens than `told`; returns how many there are. `None` if the engine is gone.
    pub async fn beyond(&mut self, told: u32) -> Option<u32> {
        let tokens = self.tokens.wait_for(|tokens| *tokens > told).await.ok()?;
        Some(*tokens)
    }
}

#[derive(Debug)]
struct Bell(mpsc::Sender<Call>);

impl Drop for Bell {
    fn drop(&mut self) {
        // Without an engine there is nothing to take back.
        let _ = self.0.send(Call::Left);
    }
}

/// Keeps the engine in step with the wall.
fn drive(mut machine: Machine, clock: WallClock, calls: &mpsc::Receiver<Call>) {
    loop {
        let call = match machine.due() {
            Some(due) => calls.recv_timeout(clock.until(due)),
            None => calls.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let now = clock.now();
        machine.catch_up(now);
        match call {
            Ok(call) => {
                for call in std::iter::once(call).chain(calls.try_iter()) {
                    if let Call::Work(work) = call {
                        machine.submit(work);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        machine.cancel_left(now);
        machine.begin(now);
    }
}
