//! A backend that breaks what it is given, or that cannot be reached, is left out for a while: but
//! only where another can do its work, so that no request is refused because of what others asked.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// Answers in a row that break before a backend is left out.
const FAILURES_MAX: u32 = 5;
/// How long it is left out at first, and at most; the time doubles while it does not get better.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long one is left out that could not be reached; whether it is well shows when it is looked at.
const PAUSE_UNREACHED: Duration = Duration::from_millis(100);
/// How long somebody waits at most until it is left out.
const PATIENCE: Duration = Duration::from_millis(100);

/// What has become of the requests of one backend.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: Mutex<State>,
    /// Whether it is there, as whoever looks after it has told the allocator.
    is_here: watch::Sender<bool>,
    opened: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Broken answers in a row.
    failures: u32,
    /// How often it was left out in a row.
    times: u32,
    until: Option<Instant>,
}

impl Breaker {
    /// Whether it can be given something now.
    pub fn is_here(&self) -> bool {
        *self.is_here.borrow() && !self.is_open()
    }

    /// Whoever looks after it has told the allocator that it has come or gone.
    pub fn set_here(&self, is_here: bool) {
        self.is_here.send_replace(is_here);
    }

    /// Whether it is left out now.
    pub fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    /// Comes back each time when it is to be left out.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }

    /// It has answered as it should.
    pub fn well(&self) {
        let mut state = self.lock();
        (state.failures, state.times) = (0, 0);
    }

    /// It has broken an answer; `other` says whether somebody else can do its work.
    pub fn broke(&self, other: impl FnOnce() -> bool) {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES_MAX || state.is_open() || !other() {
            return;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << state.times.min(8)).min(PAUSE_MAX);
        // Once it is back, the next that breaks is enough.
        (state.failures, state.times) = (FAILURES_MAX - 1, state.times.saturating_add(1));
        self.open(state, pause);
    }

    /// It could not be reached. Comes back when nothing more is sent there, if somebody else can
    /// do its work.
    pub async fn unreached(&self, other: impl FnOnce() -> bool) {
        {
            let state = self.lock();
            if !state.is_open() {
                if !other() {
                    return;
                }
                self.open(state, PAUSE_UNREACHED);
            }
        }
        let mut is_here = self.is_here.subscribe();
        // Whoever asks again too early may be sent there again, and no worse comes of it.
        let _ = timeout(PATIENCE, is_here.wait_for(|is_here| !is_here)).await;
    }

    fn open(&self, mut state: MutexGuard<'_, State>, pause: Duration) {
        state.until = Some(Instant::now() + pause);
        drop(state);
        self.opened.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it is held")
    }
}

impl State {
    fn is_open(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}
