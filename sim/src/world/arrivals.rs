//! The sources of a run and their places on the agenda.

use plimsoll_base::{SourceId, Span, Time};
use plimsoll_policy::RequestInfo;

use super::Event;
use crate::kernel::{Agenda, EventId, Rank};
use crate::workload::{Marks, Request, Source, SourceError};

/// Each source has at most one event on the agenda: its next arrival as far as is known.
pub(super) struct Arrivals {
    lines: Vec<Line>,
    /// Arrivals at or after this instant do not happen.
    end: Time,
    error: Option<SourceError>,
}

struct Line {
    source: Box<dyn Source>,
    event: Option<EventId>,
    hears_ends: bool,
}

impl Line {
    fn new(source: Box<dyn Source>) -> Line {
        Line { hears_ends: source.hears_ends(), source, event: None }
    }
}

impl Arrivals {
    pub fn new(sources: Vec<Box<dyn Source>>, duration: Option<Span>) -> Arrivals {
        let lines = sources.into_iter().map(Line::new).collect();
        Arrivals { lines, end: duration.map_or(Time::MAX, |d| Time::ZERO + d), error: None }
    }

    /// Puts every source's first arrival on the agenda.
    pub fn start(&mut self, agenda: &mut Agenda<Event>) -> Result<(), SourceError> {
        for source in 0..self.lines.len() {
            self.announce(source as u16, Time::ZERO, agenda);
        }
        self.error.take().map_or(Ok(()), Err)
    }

    /// The request that arrives now.
    pub fn take(&mut self, source: u16) -> Request {
        let line = &mut self.lines[usize::from(source)];
        line.event = None;
        line.source.take()
    }

    /// Puts a source's next arrival on the agenda, or moves it.
    #[inline(always)]
    pub fn announce(&mut self, source: u16, now: Time, agenda: &mut Agenda<Event>) {
        let line = &mut self.lines[usize::from(source)];
        let next = match line.source.next_at() {
            Ok(next) => next.filter(|&at| at < self.end),
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        };
        match (next, line.event) {
            (Some(at), Some(event)) => {
                agenda.reschedule(event, at.max(now), Rank::Arrival);
            }
            (Some(at), None) => {
                let event = Event::Arrival(source);
                line.event = Some(agenda.schedule(at.max(now), Rank::Arrival, event));
            }
            (None, Some(event)) => {
                agenda.cancel(event);
                line.event = None;
            }
            (None, None) => {}
        }
    }

    /// Tells a source that one of its requests is over, if it wants to hear of that.
    #[inline(always)]
    pub fn ended(&mut self, from: (SourceId, u32), now: Time, agenda: &mut Agenda<Event>) {
        if self.lines[from.0.index()].hears_ends {
            self.tell_ended(from, now, agenda);
        }
    }
    #[inline(never)]
    fn tell_ended(&mut self, from: (SourceId, u32), now: Time, agenda: &mut Agenda<Event>) {
        let (source, key) = from;
        if self.lines[source.index()].source.ended(now, key) {
            self.announce(source.0, now, agenda);
        }
    }

    /// No arrival happens any more.
    pub fn stop(&mut self, agenda: &mut Agenda<Event>) {
        self.end = Time::ZERO;
        for line in &mut self.lines {
            if let Some(event) = line.event.take() {
                agenda.cancel(event);
            }
        }
    }

    /// Whether no source has an arrival to come.
    pub fn are_dry(&self) -> bool {
        self.lines.iter().all(|line| line.event.is_none())
    }

    pub fn is_broken(&self) -> bool {
        self.error.is_some()
    }

    pub fn take_error(&mut self) -> Option<SourceError> {
        self.error.take()
    }
}

/// What a gateway would see of a request.
pub fn visible(request: &Request, source: SourceId, marks: &Marks) -> RequestInfo {
    // One number for each user of each source; 0 is nobody.
    let user = (u64::from(source.0) << 32 | u64::from(request.key)) + 1;
    RequestInfo {
        tenant: request.tenant,
        source,
        claims: request.claims,
        prompt_tokens: request.prompt_tokens,
        output_cap: request.output_cap,
        ..marks.seen(user)
    }
}
