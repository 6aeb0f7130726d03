//! The task that owns the allocator.

use plimsoll_base::{BackendId, End, Observer, Reason, RequestId, Span, Time};
use plimsoll_policy::detect::Limits;
use plimsoll_policy::log::Header;
use plimsoll_policy::{
    Action, Alarm, Allocator, BackendInfo, Chronicle, Config, ConfigError, Decision, Detector,
    Input, Load, RequestInfo, Signal, Used,
};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::gate::{Gate, Look, Offers, ReloadError};
use crate::inside::{Backend, Inside, Timing};
use crate::log::{Log, LogSettings};
use crate::ticket::{Answer, Let, Refused, Revocation};

/// Messages taken at once.
const BATCH: usize = 256;
/// Room in the channel beside what requests own for their last words.
const ROOM_BESIDE: usize = 4096;
/// Alarms that are remembered.
const ALARMS_MAX: usize = 256;
/// How often gauges become facts, and the log of the latest second is written down.
const SAMPLE_EVERY: Span = Span::from_secs(1);
/// How often the detector looks at its conditions.
const WATCH_EVERY: Span = Span::from_millis(250);

/// A policy, and what its log says of it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The rules.
    pub config: Config,
    /// What a log that begins under it says of itself; its `policy` is replaced by `config`.
    pub header: Header,
}

/// What the task is started with.
pub struct Settings {
    /// What decides.
    pub policy: Policy,
    /// Where decisions are written down.
    pub log: Option<LogSettings>,
    /// Who is told what happens.
    pub observer: Box<dyn Observer + Send>,
}

/// What the task is told.
pub(crate) enum Message {
    Arrived(RequestId, Box<(RequestInfo, oneshot::Sender<Answer>)>),
    FirstToken(RequestId),
    Ended(RequestId, End, Used),
    /// Whoever waited for the answer does so no more.
    Gone(RequestId),
    Joined(u32, Box<BackendInfo>),
    Left(u32),
    Reported(u32, Load, Instant),
    Drain,
    Reload(Box<(Policy, Offers)>, oneshot::Sender<Result<(), ReloadError>>),
    Ask(Look),
    Stop,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a message to the allocator")
    }
}

/// Starts the task on the current runtime.
///
/// # Errors
/// If the policy contradicts itself, or the log's folder cannot be written to.
pub fn start(settings: Settings) -> Result<(Gate, JoinHandle<()>), StartError> {
    let Settings { policy, log, observer } = settings;
    let allocator = Allocator::new(policy.config.clone())?;
    // Each request that is held owns room for its last word.
    let held = policy.config.requests_max as usize;
    let (to, from) = mpsc::channel(2 * held + ROOM_BESIDE);
    let log = log.map(|log| Log::begin(log, &policy.header())).transpose()?;
    let driver = Driver {
        clock: Clock::start(),
        detector: detector(&policy.config),
        chronicle: Chronicle::new(&policy.config, SAMPLE_EVERY),
        allocator,
        policy,
        log,
        observer,
        waiting: FxHashMap::default(),
        running: FxHashMap::default(),
        backends: Vec::new(),
        alarms: Vec::new(),
        timing: Timing::default(),
        now: Time::ZERO,
        flushed: Time::ZERO,
    };
    let gate = Gate::new(to);
    Ok((gate, tokio::spawn(driver.run(from))))
}

/// Why the task did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy contradicts itself.
    #[error("the policy contradicts itself: {0}")]
    Config(#[from] ConfigError),
    /// The log's folder cannot be written to.
    #[error("the decision log: {0}")]
    Log(#[from] std::io::Error),
}

impl Policy {
    fn header(&self) -> Header {
        Header { policy: self.config.clone(), ..self.header.clone() }
    }
}

fn detector(config: &Config) -> Detector {
    Detector::new(config, Limits { every: WATCH_EVERY, ..Limits::default() })
}

struct Driver {
    clock: Clock,
    policy: Policy,
    allocator: Allocator,
    detector: Detector,
    chronicle: Chronicle,
    observer: Box<dyn Observer + Send>,
    log: Option<Log>,
    /// Who waits for an answer, and when each arrived.
    waiting: FxHashMap<RequestId, (oneshot::Sender<Answer>, Time)>,
    /// Who runs, and how each is told that it is taken back.
    running: FxHashMap<RequestId, Revocation>,
    backends: Vec<Option<Backend>>,
    alarms: Vec<(Time, Alarm)>,
    timing: Timing,
    now: Time,
    flushed: Time,
}

impl Driver {
    async fn run(mut self, mut from: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(BATCH);
        loop {
            let wake = self.wake();
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                count = from.recv_many(&mut messages, BATCH) => if count == 0 { break },
                () = timer => self.pass_time(),
            }
            for message in messages.drain(..) {
                if let Message::Stop = message {
                    from.close();
                    return self.finish();
                }
                self.take(message);
                if self.log.as_mut().is_some_and(Log::carry) {
                    self.rotate();
                }
            }
        }
        self.finish();
    }

    /// When time alone brings something about.
    fn wake(&self) -> Option<Instant> {
        let flush = self.log.as_ref().map(|_| self.flushed.saturating_add(SAMPLE_EVERY));
        let times = [self.allocator.next_deadline(), self.detector.next_check(), flush];
        times.into_iter().flatten().min().map(|at| self.clock.instant(at))
    }

    fn pass_time(&mut self) {
        let now = self.tick();
        let due = [self.allocator.next_deadline(), self.detector.next_check()];
        if due.into_iter().flatten().any(|at| at <= now) {
            self.tell(Input::Deadline);
        }
        if let Some(log) = &mut self.log
            && now >= self.flushed.saturating_add(SAMPLE_EVERY)
        {
            self.flushed = now;
            log.writer.flush();
            if log.carry() {
                self.rotate();
            }
        }
    }

    /// The time now, which is later than that of the input before.
    fn tick(&mut self) -> Time {
        self.now = self.clock.now().max(self.now);
        self.now
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Arrived(id, arrival) => {
                let (info, answer) = *arrival;
                let now = self.tick();
                self.waiting.insert(id, (answer, now));
                self.tell_at(now, Input::Arrived(id, info));
            }
            Message::FirstToken(id) => self.tell(Input::FirstToken(id)),
            Message::Ended(id, end, used) => {
                self.running.remove(&id);
                self.tell(Input::Ended(id, end, used));
            }
            Message::Gone(id) => self.gone(id),
            Message::Joined(slot, info) => self.join(slot, *info),
            Message::Left(slot) => self.leave(slot),
            Message::Reported(slot, load, as_of) => {
                let as_of = self.clock.at(as_of);
                let Some(Some(backend)) = self.backends.get_mut(slot as usize) else { return };
                backend.load = Some((as_of, load));
                let id = BackendId { slot, generation: backend.generation };
                let as_of = as_of.min(self.tick());
                self.tell(Input::Reported(id, load, as_of));
            }
            Message::Drain => self.tell(Input::Draining),
            Message::Reload(reload, answer) => {
                let (policy, offers) = *reload;
                // Whoever asked may not be waiting any more.
                let _ = answer.send(self.reload(policy, &offers));
            }
            Message::Ask(look) => look(&self.inside()),
            Message::Stop => unreachable!("the loop ends at it"),
        }
    }

    /// A client left while it waited, or after it was let go and before it knew.
    fn gone(&mut self, id: RequestId) {
        if self.running.remove(&id).is_some() {
            self.tell(Input::Ended(id, End::Cancelled, Used::default()));
        } else if self.waiting.contains_key(&id) {
            self.tell(Input::Withdrawn(id));
        }
    }

    fn join(&mut self, slot: u32, info: BackendInfo) {
        let at = slot as usize;
        if self.backends.len() <= at {
            self.backends.resize(at + 1, None);
        }
        let generation = self.backends[at].map_or(0, |backend| backend.generation + 1);
        self.backends[at] = Some(Backend { generation, is_here: true, info, load: None });
        self.tell(Input::Joined(BackendId { slot, generation }, info));
    }

    fn leave(&mut self, slot: u32) {
        if let Some(Some(backend)) = self.backends.get_mut(slot as usize)
            && std::mem::replace(&mut backend.is_here, false)
        {
            let id = BackendId { slot, generation: backend.generation };
            self.tell(Input::Left(id));
        }
    }

    fn tell(&mut self, input: Input) {
        let now = self.tick();
        self.tell_at(now, input);
    }

    /// Hands the allocator an input and carries out what it decides.
    fn tell_at(&mut self, now: Time, input: Input) {
        let began = Instant::now();
        if let Some(log) = &mut self.log {
            log.writer.input(now, &input);
        }
        self.detector.input(now, &input, &self.allocator);
        self.allocator.handle(now, input.clone());
        self.chronicle.input(now, &input, &self.allocator, &mut self.observer);
        while let Some(decision) = self.allocator.poll() {
            if let Some(log) = &mut self.log {
                log.writer.decision(&decision);
            }
            self.detector.decision(now, &decision, &self.allocator);
            self.chronicle.decision(now, &decision, &self.allocator, &mut self.observer);
            self.carry_out(now, &decision);
        }
        while let Some(signal) = self.allocator.poll_signal() {
            self.signal(now, &signal);
        }
        self.rest();
        self.timing.add(Span::from_nanos(began.elapsed().as_nanos() as u64));
    }

    /// All that was decided is carried out.
    fn rest(&mut self) {
        let now = self.now;
        self.chronicle.rest(now, &self.allocator, &mut self.observer);
        self.detector.settle(now, &self.allocator);
        if self.detector.has_alarms() {
            while let Some(signal) = self.detector.poll() {
                self.signal(now, &signal);
            }
        }
    }

    fn signal(&mut self, now: Time, signal: &Signal) {
        if let Some(log) = &mut self.log {
            log.writer.signal(signal);
        }
        self.chronicle.signal(now, signal, &mut self.observer);
        if let Signal::Alarm(alarm) = signal {
            if self.alarms.len() == ALARMS_MAX {
                self.alarms.remove(0);
            }
            self.alarms.push((now, *alarm));
        }
    }

    fn carry_out(&mut self, now: Time, decision: &Decision) {
        let id = decision.id;
        let Decision { class, reason, bound, .. } = *decision;
        let refused = |refusal, retry_after| {
            let reason = Some(reason);
            Refused { class, refusal, reason, retry_after, bound }
        };
        match decision.action {
            Action::Dispatch(..) if reason == Reason::Resumed => {}
            Action::Dispatch(backend, priority) => {
                let Some((answer, arrived)) = self.waiting.remove(&id) else { return };
                let revocation = Revocation::default();
                self.running.insert(id, revocation.clone());
                let class = class.expect("what is dispatched has a class");
                let waited = now - arrived;
                let priority = priority.0;
                // Whoever left meanwhile says so in its own message.
                let _ = answer.send(Ok(Let {
                    class,
                    backend,
                    priority,
                    reason,
                    bound,
                    waited,
                    revocation,
                }));
            }
            Action::Reject(refusal, retry_after) => {
                self.answer(id, refused(Some(refusal), retry_after));
            }
            Action::Close(_) => self.answer(id, refused(None, Span::ZERO)),
            Action::Cancel(_) => {
                if let Some(revocation) = self.running.get(&id) {
                    revocation.revoke();
                }
            }
            Action::Preempt(_) => unreachable!("no rule takes back what runs"),
        }
    }

    fn answer(&mut self, id: RequestId, refused: Refused) {
        if let Some((answer, _)) = self.waiting.remove(&id) {
            let _ = answer.send(Err(refused));
        }
    }

    fn reload(&mut self, policy: Policy, offers: &[(u32, BackendInfo)]) -> Result<(), ReloadError> {
        let (before, after) = (self.policy.config.classes.len(), policy.config.classes.len());
        if after < before {
            return Err(ReloadError::Classes { before, after });
        }
        let fresh = Allocator::new(policy.config.clone())?;
        self.policy = policy;
        for &(slot, info) in offers {
            if let Some(Some(backend)) = self.backends.get_mut(slot as usize) {
                backend.info = info;
            }
        }
        self.take_over(fresh);
        Ok(())
    }

    /// The log begins a new file, with an allocator that knows no more than the file tells it.
    fn rotate(&mut self) {
        let config = self.policy.config.clone();
        self.take_over(Allocator::new(config).expect("a policy that decides is valid"));
    }

    /// A fresh allocator takes the place of this one. Whoever observes knows what is held, and is not
    /// told of it again.
    fn take_over(&mut self, fresh: Allocator) {
        let observer = std::mem::replace(&mut self.observer, Box::new(()));
        self.hand_over(fresh);
        self.observer = observer;
    }

    fn hand_over(&mut self, fresh: Allocator) {
        let held = std::mem::replace(&mut self.allocator, fresh).handover();
        self.detector = detector(&self.policy.config);
        self.chronicle = Chronicle::new(&self.policy.config, SAMPLE_EVERY);
        if let Some(log) = &mut self.log {
            log.rotate(&self.policy.header());
        }
        for slot in 0..self.backends.len() {
            if let Some(Backend { generation, is_here: true, info, .. }) = self.backends[slot] {
                let id = BackendId { slot: slot as u32, generation };
                self.tell(Input::Joined(id, info));
            }
        }
        for input in held {
            self.tell(input);
        }
    }

    fn inside(&self) -> Inside<'_> {
        Inside {
            now: self.clock.now(),
            config: &self.policy.config,
            allocator: &self.allocator,
            detector: &self.detector,
            backends: &self.backends,
            alarms: &self.alarms,
            timing: &self.timing,
            log: self.log.as_ref().map_or_else(Default::default, Log::state),
        }
    }

    fn finish(mut self) {
        let now = self.tick();
        self.chronicle.finish(now, &mut self.observer);
        if let Some(log) = self.log.take() {
            log.finish();
        }
    }
}
