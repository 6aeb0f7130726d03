//! What is offered: the requests of a scenario's own sources, in order, so that a live run and a
//! simulated one have the very same.

use std::collections::VecDeque;

use plimsoll_base::{SourceId, Span, Time};
use plimsoll_scenario::Scenario;
use plimsoll_sim::engine::{Counters, Engine, Job, Note};
use plimsoll_sim::model::EngineModel;
use plimsoll_sim::workload::{Request, Source, SourceError};

use super::ValidateError;

/// Requests that a run may offer.
const REQUESTS_MAX: usize = 1_000_000;
/// How many batches of requests find the capacity.
const BATCHES: usize = 24;

/// A request and when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub at: Time,
    pub source: SourceId,
    pub request: Request,
}

/// Draws a replication's requests and has them arrive `pace` times as fast, for as long as the
/// scenario says.
pub(super) fn draw(
    scenario: &Scenario,
    (seed, replication): (u64, u32),
    pace: f64,
) -> Result<Vec<Arrival>, ValidateError> {
    let end = scenario.model.plan.duration.map_or(Time::MAX, |duration| Time::ZERO + duration);
    let broken = |error: SourceError| ValidateError::Scenario(error.to_string());
    let mut all = Vec::new();
    for (index, mut source) in
        scenario.sources(seed, replication).map_err(broken)?.into_iter().enumerate()
    {
        while let Some(at) = source.next_at().map_err(broken)? {
            let at = Time::ZERO + Span::from_secs_f64(at.secs_f64() / pace);
            if at >= end {
                break;
            }
            if all.len() >= REQUESTS_MAX {
                let what = format!(
                    "a run offers more than {REQUESTS_MAX} requests: state a `run.duration`, \
                     shorter or at all"
                );
                return Err(ValidateError::Scenario(what));
            }
            all.push(Arrival { at, source: SourceId(index as u16), request: source.take() });
        }
    }
    all.sort_by_key(|arrival| (arrival.at, arrival.source.0));
    Ok(all)
}

/// The sources that offer these requests again, one a workload.
pub(super) fn sources(arrivals: &[Arrival], workloads: usize) -> Vec<Box<dyn Source>> {
    let mut listed: Vec<Listed> = (0..workloads).map(|_| Listed::default()).collect();
    for arrival in arrivals {
        listed[arrival.source.index()].0.push_back((arrival.at, arrival.request));
    }
    listed.into_iter().map(|source| Box::new(source) as Box<dyn Source>).collect()
}

#[derive(Default)]
struct Listed(VecDeque<(Time, Request)>);

impl Source for Listed {
    fn next_at(&mut self) -> Result<Option<Time>, SourceError> {
        Ok(self.0.front().map(|(at, _)| *at))
    }
    fn take(&mut self) -> Request {
        self.0.pop_front().expect("an announced request is there").1
    }
}

/// How many such requests a second an engine does that always has enough of them: what it has
/// begun by the time when the last of several batches no longer waits.
pub(super) fn capacity(model: &EngineModel, arrivals: &[Arrival]) -> f64 {
    if arrivals.is_empty() {
        return 0.0;
    }
    let mut engine: Engine<Counters> = Engine::new(model, 1);
    let count = (model.seats as usize * BATCHES).max(arrivals.len());
    for (key, arrival) in (0..).zip(arrivals.iter().cycle().take(count)) {
        engine.submit(Job {
            key,
            class: plimsoll_base::ClassId(0),
            priority: 0,
            prompt_tokens: arrival.request.prompt_tokens,
            output_tokens: arrival.request.output_tokens,
        });
    }
    let (mut now, mut notes, mut finished) = (Time::ZERO, Vec::new(), 0u32);
    let mut busy = Time::ZERO;
    while let Some(due) = engine.begin(now, &mut notes) {
        now = due;
        engine.complete(now, &mut notes);
        let ends = notes.drain(..).filter(|note| matches!(note, Note::Finished { .. })).count();
        if engine.sample().waiting > 0 {
            finished += ends as u32;
            busy = now;
        }
    }
    match busy > Time::ZERO {
        true => f64::from(finished) / busy.secs_f64(),
        // All fit the batch at once.
        false => count as f64 / now.secs_f64().max(1e-9),
    }
}
