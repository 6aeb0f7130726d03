//! A run on the device, open loop on the wall clock: a thread sends each request at its instant to
//! the allocator, which is the driver's, in this process; what it lets go is handed to the device.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_base::{ClassId, End, Outcome, PoolId, Span, Time};
use plimsoll_driver::{Gate, LogSettings, Pending, Policy, Refused, Settings};
use plimsoll_policy::log::Header;
use plimsoll_policy::{Allocator, BackendInfo};
use plimsoll_scenario::Scenario;
use plimsoll_sim::world::visible;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::ValidateError;
use super::arrivals::Arrival;
use crate::calibrate::{Watch, steps_of, token_times};
use crate::device::{Answer, Ask, Device, DeviceError, Heard, Prompt, Step};

/// From the start to the instant that is the run's zero.
const LEAD: Duration = Duration::from_millis(50);
/// Before an arrival the thread no longer sleeps: a core that rests may wake up that late, and so may
/// those that take the request on, which run on the same one where the client is held on one.
const AWAKE: Duration = Duration::from_millis(2);
/// Between two looks at whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is run.
pub(super) struct Plan<'a> {
    pub scenario: &'a Scenario,
    pub arrivals: &'a [Arrival],
    pub header: Header,
    /// The folder of its decision log.
    pub log: &'a Path,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct LiveRun {
    /// In the order of arrivals.
    pub requests: Vec<LiveRequest>,
    /// Since the run's zero; empty where nothing shows them.
    pub steps: Vec<Step>,
    /// Whether the device told them; they are read from the tokens otherwise, as far as those show them.
    pub tells_steps: bool,
    /// The decision log.
    pub log: PathBuf,
    /// The run's zero on the device's clock.
    pub zero: Time,
}

/// A request, in times since the run's zero.
#[derive(Clone, Debug)]
pub(super) struct LiveRequest {
    pub class: Option<ClassId>,
    /// When it was to arrive.
    pub at: Time,
    /// How long the policy had it wait.
    pub waited: Span,
    /// How much later it was sent than that.
    pub lag: Option<Span>,
    pub outcome: Outcome,
    pub answer: Option<Answer>,
    /// When each of its tokens was there, where that is known.
    pub tokens: Option<Vec<Time>>,
}

impl LiveRequest {
    /// When its first token was there; `None` if only that of a later one shows it.
    pub fn first_token(&self) -> Option<Time> {
        self.tokens.as_ref()?.first().copied()
    }
}

/// Runs it to its end: the last answer, or the longest drain.
pub(super) fn run(
    device: &Arc<dyn Device>,
    plan: &Plan<'_>,
    watch: &dyn Watch,
) -> Result<LiveRun, ValidateError> {
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).thread_name("driver").enable_time().build();
    let runtime = runtime.map_err(ValidateError::Threads)?;
    device.take_steps()?;
    let (gate, task) = runtime.block_on(start(plan))?;
    let going = Going {
        device: Arc::clone(device),
        zero: device.clock().at(Instant::now() + LEAD),
        failed: Arc::default(),
    };
    let reporting = report(&runtime, &going, (&gate, plan.scenario));
    let followed = send(&runtime, &going, (&gate, plan), watch);
    let requests = followed.and_then(|all| drain(&runtime, &going, (all, plan), watch));
    reporting.abort();
    runtime.block_on(async {
        gate.stop().await;
        // It has panicked, or it has ended.
        task.await.map_err(|_| ValidateError::Driver)
    })?;
    let mut requests = requests?;
    let steps = device.take_steps()?;
    let since = |at: Time| Time::ZERO + at.saturating_since(going.zero);
    let within = |step: &Step| step.start >= going.zero;
    let shifted = |step: Step| Step {
        start: since(step.start),
        end: since(step.end),
        delivered: since(step.delivered),
        ..step
    };
    let told: Option<Vec<Step>> =
        steps.map(|steps| steps.into_iter().filter(within).map(shifted).collect());
    let told = told.filter(|steps| !steps.is_empty());
    let engine = &plan.scenario.model.pools[0].engine;
    let answers = || requests.iter().filter_map(|request| request.answer.as_ref());
    let times = token_times(answers(), told.as_deref().unwrap_or_default());
    let tells_steps = told.is_some();
    let steps = told.unwrap_or_else(|| steps_of(answers(), (engine.step_tokens_max, engine.seats)));
    let answered = requests.iter_mut().filter(|request| request.answer.is_some());
    for (request, times) in answered.zip(times) {
        request.tokens = times;
    }
    Ok(LiveRun {
        tells_steps,
        steps,
        requests,
        log: plan.log.join("decisions-000001.plog"),
        zero: going.zero,
    })
}

/// Starts the driver, with the device as its one backend.
async fn start(plan: &Plan<'_>) -> Result<(Gate, JoinHandle<()>), ValidateError> {
    let model = &plan.scenario.model;
    let settings = Settings {
        policy: Policy { config: model.policy.clone(), header: plan.header.clone() },
        log: Some(LogSettings {
            folder: plan.log.to_owned(),
            file_bytes_max: u64::MAX,
            files_max: 1,
        }),
        observer: Box::new(()),
    };
    let started = plimsoll_driver::start(settings);
    let (gate, task) = started.map_err(|error| ValidateError::Scenario(error.to_string()))?;
    let pool = &model.pools[0];
    let info = BackendInfo {
        pool: PoolId(0),
        seats: pool.engine.seats,
        kv_tokens: pool.engine.kv_tokens(),
        context_max: pool.engine.context_max,
        site: pool.site,
        models: pool.models,
    };
    gate.join(0, info).await;
    Ok((gate, task))
}

/// What every request of a run needs.
#[derive(Clone)]
struct Going {
    device: Arc<dyn Device>,
    /// The run's zero on the device's clock.
    zero: Time,
    /// Whether the device has failed a request: no more are sent.
    failed: Arc<AtomicBool>,
}

/// Reports the device's load as often as the policy reads it.
fn report(
    runtime: &Runtime,
    going: &Going,
    (gate, scenario): (&Gate, &Scenario),
) -> JoinHandle<()> {
    let needs = Allocator::new(scenario.model.policy.clone()).map(|allocator| allocator.needs());
    let every = needs.ok().and_then(|needs| needs.reports);
    let (device, gate) = (Arc::clone(&going.device), gate.clone());
    runtime.spawn(async move {
        let Some(every) = every else { return };
        loop {
            tokio::time::sleep(Duration::from_nanos(every.nanos())).await;
            let (device, as_of) = (Arc::clone(&device), tokio::time::Instant::now());
            let load = tokio::task::spawn_blocking(move || device.load()).await;
            if let Ok(Ok(Some(load))) = load {
                gate.report(0, load, as_of).await;
            }
        }
    })
}

type Followed = Result<LiveRequest, DeviceError>;

/// Sends each request at its instant.
fn send(
    runtime: &Runtime,
    going: &Going,
    (gate, plan): (&Gate, &Plan<'_>),
    watch: &dyn Watch,
) -> Result<Vec<JoinHandle<Followed>>, ValidateError> {
    let mut followed = Vec::with_capacity(plan.arrivals.len());
    let marks: Vec<_> = plan.scenario.model.workloads.iter().map(|it| it.marks).collect();
    for arrival in plan.arrivals.iter() {
        let Arrival { at, source, request } = *arrival;
        let due = going.zero.saturating_add(at.saturating_since(Time::ZERO));
        wait_until(going.device.clock().instant(due), watch)?;
        if going.failed.load(Ordering::Relaxed) {
            break;
        }
        let pending = gate.submit(visible(&request, source, &marks[source.index()]));
        let ask = Ask {
            prompt: Prompt::Random { tokens: request.prompt_tokens },
            output_tokens: request.output_tokens,
            priority: 0,
        };
        let one = follow(going.clone(), gate.clone(), (pending, ask), at);
        followed.push(runtime.spawn(one));
    }
    Ok(followed)
}

/// Sleeps until shortly before, then looks at the clock, and lets others run meanwhile.
fn wait_until(due: Instant, watch: &dyn Watch) -> Result<(), ValidateError> {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if left > AWAKE {
            if watch.stop() {
                return Err(ValidateError::Interrupted);
            }
            std::thread::sleep((left - AWAKE).min(LOOK_EVERY));
        } else {
            std::thread::yield_now();
        }
    }
}

/// Follows a request through the policy and the device.
async fn follow(
    going: Going,
    gate: Gate,
    (pending, mut ask): (Result<Pending, Refused>, Ask),
    at: Time,
) -> Followed {
    let admitted = match pending {
        Ok(pending) => pending.admitted().await,
        Err(refused) => Err(refused),
    };
    let (class, outcome) = (None, Outcome::Unfinished);
    let (lag, answer, tokens) = (None, None, None);
    let mut seen = LiveRequest { class, at, waited: Span::ZERO, lag, outcome, answer, tokens };
    let mut ticket = match admitted {
        Ok(ticket) => ticket,
        Err(Refused { class, refusal, .. }) => {
            let outcome = refusal.map_or(Outcome::Ended(End::Expired), Outcome::Refused);
            return Ok(LiveRequest { class, outcome, ..seen });
        }
    };
    (seen.class, seen.waited) = (Some(ticket.class()), ticket.waited());
    ask.priority = ticket.priority();
    let mut answering = going.device.submit(&ask);
    let (mut heard, mut is_first) = (Vec::new(), true);
    loop {
        let next = tokio::select! {
            biased;
            next = answering.next() => next,
            () = ticket.revoked() => {
                ticket.end(End::Evicted);
                return Ok(LiveRequest { outcome: Outcome::Ended(End::Evicted), ..seen });
            }
        };
        match &next {
            Some(Heard::Chunk(_)) if std::mem::take(&mut is_first) => {
                gate.first_token(&ticket).await;
            }
            Some(Heard::Ended(_, usage)) => {
                ticket.used().prompt_tokens = usage.prompt_tokens;
                ticket.used().output_tokens = usage.output_tokens;
            }
            Some(Heard::Failed(..)) | None => going.failed.store(true, Ordering::Relaxed),
            Some(Heard::Sent(_) | Heard::Accepted(_) | Heard::FirstByte(_) | Heard::Chunk(_)) => {}
        }
        let is_last = matches!(next, Some(Heard::Ended(..) | Heard::Failed(..)) | None);
        heard.extend(next);
        if is_last {
            break;
        }
    }
    let answer = Answer::of(heard);
    ticket.end(if answer.is_ok() { End::Finished } else { End::Failed });
    let answer = since(answer?, going.zero);
    seen.lag = Some(answer.sent.saturating_since(at.saturating_add(seen.waited)));
    seen.outcome = Outcome::Ended(End::Finished);
    seen.answer = Some(answer);
    Ok(seen)
}

/// In times since the run's zero.
fn since(mut answer: Answer, zero: Time) -> Answer {
    let since = |at: &mut Time| *at = Time::ZERO + at.saturating_since(zero);
    [&mut answer.sent, &mut answer.accepted, &mut answer.first_byte, &mut answer.ended]
        .into_iter()
        .for_each(since);
    answer.chunks.iter_mut().for_each(|chunk| since(&mut chunk.at));
    answer
}

/// Waits for all that is under way, as long as the scenario lets a run drain; what is left then is
/// unfinished.
fn drain(
    runtime: &Runtime,
    going: &Going,
    (followed, plan): (Vec<JoinHandle<Followed>>, &Plan<'_>),
    watch: &dyn Watch,
) -> Result<Vec<LiveRequest>, ValidateError> {
    let drain_max = Duration::from_nanos(plan.scenario.model.plan.drain_max.nanos());
    let end = Instant::now() + drain_max.min(Duration::from_secs(86_400));
    let mut requests = Vec::with_capacity(followed.len());
    for (mut one, arrival) in followed.into_iter().zip(plan.arrivals) {
        let ended = loop {
            let left = end.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
            let waited = runtime.block_on(async { tokio::time::timeout(left, &mut one).await });
            match waited {
                Ok(ended) => break Some(ended),
                Err(_) if watch.stop() => return Err(ValidateError::Interrupted),
                Err(_) if Instant::now() >= end || going.failed.load(Ordering::Relaxed) => {
                    one.abort();
                    break None;
                }
                Err(_) => {}
            }
        };
        requests.push(match ended {
            Some(Ok(followed)) => followed?,
            Some(Err(_)) => return Err(ValidateError::Driver),
            None => LiveRequest {
                class: None,
                at: arrival.at,
                waited: Span::ZERO,
                lag: None,
                outcome: Outcome::Unfinished,
                answer: None,
                tokens: None,
            },
        });
    }
    Ok(requests)
}

/// Reads the log of a run and has a fresh allocator decide again. Returns inputs, decisions, and
/// the first difference, if there is one.
pub(super) fn replays(log: &Path) -> Result<(u64, u64, Option<String>), ValidateError> {
    use plimsoll_policy::log::{Reader, Replay};
    let broken = |what: String| ValidateError::Log(log.to_owned(), what);
    let bytes = std::fs::read(log).map_err(|error| broken(error.to_string()))?;
    let mut reader = Reader::new(&bytes).map_err(|error| broken(error.to_string()))?;
    let replay = Replay::new(reader.header().policy.clone());
    let mut replay = replay.map_err(|error| broken(error.to_string()))?;
    for record in &mut reader {
        let record = record.map_err(|error| broken(error.to_string()))?;
        if let Err(difference) = replay.step(&record) {
            let what = format!("differs at input {}", difference.expected.number);
            let totals = reader.totals();
            return Ok((totals.inputs, totals.decisions, Some(what)));
        }
    }
    let totals = reader.totals();
    Ok((totals.inputs, totals.decisions, None))
}
