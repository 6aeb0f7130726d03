//! The task that owns the engine, and how others ask it for something.

use std::sync::Arc;

use plimsoll_base::BackendSample;
use plimsoll_sim::model::EngineModel;
use tokio::sync::{Notify, mpsc, watch};

use super::machine::{Machine, Order, Work};
use super::steps::StepBook;
use super::wall::WallClock;

/// Requests on their way to the engine.
const INTAKE_MAX: usize = 1_024;

/// Where requests are handed in.
#[derive(Debug)]
pub(super) struct Desk {
    intake: mpsc::Sender<Work>,
    bell: Arc<Notify>,
    sample: watch::Receiver<BackendSample>,
    book: StepBook,
    clock: WallClock,
}

impl Desk {
    /// Starts the task that owns the engine; it ends with the desk.
    pub fn open(model: &EngineModel, speed: f64) -> Desk {
        let (intake, works) = mpsc::channel(INTAKE_MAX);
        let bell = Arc::new(Notify::new());
        let book = StepBook::default();
        let machine = Machine::new(model, book.clone());
        let (publish, sample) = watch::channel(machine.sample());
        let clock = WallClock::start(speed);
        tokio::spawn(drive(machine, clock, (works, Arc::clone(&bell)), publish));
        Desk { intake, bell, sample, book, clock }
    }

    /// Hands in a request; `None` if the engine is gone.
    pub async fn submit(&self, order: Order) -> Option<Ticket> {
        let (delivered, tokens) = watch::channel(0);
        let ticket = Ticket { tokens, _bell: Bell(Arc::clone(&self.bell)) };
        self.intake.send(Work { order, delivered }).await.ok()?;
        Some(ticket)
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
struct Bell(Arc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Keeps the engine in step with the wall.
async fn drive(
    mut machine: Machine,
    clock: WallClock,
    (mut works, bell): (mpsc::Receiver<Work>, Arc<Notify>),
    publish: watch::Sender<BackendSample>,
) {
    loop {
        let due = machine.due().map(|at| clock.instant(at));
        let step = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let work = tokio::select! {
            () = step => None,
            () = bell.notified() => None,
            work = works.recv() => match work {
                Some(work) => Some(work),
                None => return,
            },
        };
        let now = clock.now();
        machine.catch_up(now);
        if let Some(work) = work {
            machine.submit(work);
            while let Ok(work) = works.try_recv() {
                machine.submit(work);
            }
        }
        machine.cancel_left(now);
        machine.begin(now);
        publish.send_replace(machine.sample());
    }
}
