//! The link between the engines of a unit: one transfer after the other, in the order in which
//! they were asked for.

use std::collections::VecDeque;

use plimsoll_base::Time;

use crate::model::LinkModel;

/// A link and what it carries.
#[derive(Debug)]
pub(super) struct Link {
    pub model: LinkModel,
    /// Keys and tokens of those who wait for it.
    waiting: VecDeque<(u32, u32)>,
    /// Whom it carries, and until when.
    carried: Option<(u32, Time)>,
    /// What has been sent and is not there yet, the earliest first: the latency is the same for all.
    landing: VecDeque<(u32, Time)>,
}

impl Link {
    pub fn new(model: LinkModel) -> Link {
        Link { model, waiting: VecDeque::new(), carried: None, landing: VecDeque::new() }
    }

    /// Somebody wants so many tokens carried.
    pub fn ask(&mut self, key: u32, tokens: u32) {
        self.waiting.push_back((key, tokens));
    }

    /// Somebody who waits does so no more.
    pub fn forget(&mut self, key: u32) {
        self.waiting.retain(|&(waiting, _)| waiting != key);
    }

    /// Carries the next one, if the link is free; returns whom.
    pub fn start(&mut self, now: Time) -> Option<u32> {
        if self.carried.is_some() {
            return None;
        }
        let (key, tokens) = self.waiting.pop_front()?;
        self.carried = Some((key, now + self.model.taken(tokens)));
        Some(key)
    }

    /// Whose KV has come at `now`, one a call.
    pub fn land(&mut self, now: Time) -> Option<u32> {
        if let Some((key, until)) = self.carried.take_if(|(_, until)| *until <= now) {
            self.landing.push_back((key, until + self.model.latency));
        }
        let is_there = self.landing.front().is_some_and(|&(_, at)| at <= now);
        is_there.then(|| self.landing.pop_front().expect("somebody has landed").0)
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Time> {
        let sent = self.carried.map(|(_, until)| until);
        sent.into_iter().chain(self.landing.front().map(|&(_, at)| at)).min()
    }
}
