//! What happened, in numbers that only rise: a fold over facts.
//!
//! The driver's task tells, the admin side reads. Whatever is labelled is bounded: classes, routes,
//! models and outcomes are the file's; tenants are no labels.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use plimsoll_base::{
    AlarmKind, BackendId, ClassId, End, Fact, ModelId, Observer, Outcome, RequestId, RequestRecord,
    SourceId, Span, Time,
};
use plimsoll_config::gateway::{GatewayFile, ROUTES};
use rustc_hash::FxHashMap;

use super::shares::Shares;
use super::text::Histogram;
use crate::places::{Place, Places};

/// As OpenTelemetry's conventions for generative AI advise, in seconds.
const DURATION: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_TOKEN: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const PER_TOKEN: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Our own, in seconds: most waits are shorter than a millisecond, bad ones longer than a minute.
const QUEUE_WAIT: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0,
];
/// The route of leases, which is no inference.
const LEASES: SourceId = SourceId(ROUTES.len() as u16 - 1);

/// Whose inference it was, as labels tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    pub class: Option<ClassId>,
    pub source: SourceId,
    /// Known where the backend serves one model only.
    pub model: Option<ModelId>,
}

/// Which tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Input,
    Output,
}

/// Everything that is counted.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    /// From arrival to the end, of requests that were let in; by how they ended, too.
    pub duration: BTreeMap<(Who, End), Histogram>,
    pub first_token: BTreeMap<Who, Histogram>,
    pub per_token: BTreeMap<Who, Histogram>,
    pub tokens: BTreeMap<(Who, Side), Histogram>,
    pub queue_wait: BTreeMap<ClassId, Histogram>,
    pub requests: BTreeMap<(Option<ClassId>, Outcome), u64>,
    pub alarms: BTreeMap<(ClassId, AlarmKind), u64>,
    /// By class and culprit.
    pub starved: BTreeMap<(ClassId, Option<ClassId>), Span>,
    pub shares: Shares,
    /// What was charged for each request that is let in.
    charged: FxHashMap<RequestId, f64>,
    /// The one model that the backend of a slot serves.
    models: Vec<Option<ModelId>>,
}

/// Numbers that two sides hold.
#[derive(Clone, Debug)]
pub(crate) struct Meter(Arc<Mutex<Numbers>>);

impl Meter {
    pub fn new(file: &GatewayFile, places: &Places) -> Meter {
        Meter(Arc::new(Mutex::new(Numbers::new(file, places))))
    }

    /// The numbers; to be let go of soon, because the driver waits for them.
    pub fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().expect("nobody panics while it is held")
    }
}

impl Observer for Meter {
    fn observe(&mut self, now: Time, fact: &Fact) {
        self.lock().observe(now, fact);
    }
    fn close(&mut self, now: Time, record: &RequestRecord) {
        self.lock().closed(now, record);
    }
}

impl Numbers {
    pub fn new(file: &GatewayFile, places: &Places) -> Numbers {
        let mut numbers = Numbers {
            duration: BTreeMap::new(),
            first_token: BTreeMap::new(),
            per_token: BTreeMap::new(),
            tokens: BTreeMap::new(),
            queue_wait: BTreeMap::new(),
            requests: BTreeMap::new(),
            alarms: BTreeMap::new(),
            starved: BTreeMap::new(),
            shares: Shares::new(file),
            charged: FxHashMap::default(),
            models: Vec::new(),
        };
        numbers.adopt(file, places);
        numbers
    }

    /// Another file is in force.
    pub fn adopt(&mut self, file: &GatewayFile, places: &Places) {
        self.shares.adopt(file);
        for class in (0..file.config.classes.len() as u16).map(ClassId) {
            self.queue_wait.entry(class).or_insert_with(|| Histogram::new(QUEUE_WAIT));
            self.requests.entry((Some(class), Outcome::Ended(End::Finished))).or_default();
        }
        let own = file.config.models.len() - file.resources.len();
        let model = |place: &Place| match place {
            Place::Backend(upstream) if !file.any_model => {
                let serves = |&model: &ModelId| upstream.backend.serves(model);
                let mut served = (0..own as u16).map(ModelId).filter(serves);
                served.next().filter(|_| served.next().is_none())
            }
            Place::Backend(_) | Place::Removed(_) | Place::Resource(_) => None,
        };
        self.models = places.iter().map(|(_, place)| model(place)).collect();
    }

    /// A class was starved for so long.
    pub fn starve(&mut self, class: ClassId, culprit: Option<ClassId>, span: Span) {
        *self.starved.entry((class, culprit)).or_default() += span;
    }

    fn observe(&mut self, now: Time, fact: &Fact) {
        match fact {
            Fact::Dispatched { id, class, arrived, prompt_tokens, tokens, .. } => {
                self.waited(*class, now - *arrived);
                let output = tokens.saturating_sub(u64::from(*prompt_tokens));
                let cost = self.shares.cost(*prompt_tokens, output);
                self.shares.charge(now, *class, cost);
                self.charged.insert(*id, cost);
            }
            Fact::Bound { class, bound } => self.shares.bound(now, *class, *bound),
            Fact::Closed(record) => self.closed(now, record),
            Fact::Alarmed(alarm) => {
                *self.alarms.entry((alarm.victim, alarm.kind)).or_default() += 1;
            }
            Fact::Arrived { .. }
            | Fact::Started { .. }
            | Fact::Preempted { .. }
            | Fact::Handed { .. }
            | Fact::Gaps { .. }
            | Fact::BackendSampled { .. }
            | Fact::ClassSampled { .. }
            | Fact::Advised(_)
            | Fact::WarmedUp
            | Fact::ArrivalsEnded
            | Fact::RunEnded => {}
        }
    }

    fn waited(&mut self, class: ClassId, span: Span) {
        let wait = self.queue_wait.entry(class).or_insert_with(|| Histogram::new(QUEUE_WAIT));
        wait.add(span.secs_f64());
    }

    fn closed(&mut self, now: Time, record: &RequestRecord) {
        *self.requests.entry((record.class, record.outcome)).or_default() += 1;
        let Outcome::Ended(end) = record.outcome else { return };
        if record.dispatched.is_none() {
            // It left the queue before its turn: whole as it is, that wait counts too.
            if let Some(class) = record.class {
                self.waited(class, record.e2e());
            }
            return;
        }
        let charged = self.charged.remove(&record.id).unwrap_or(0.0);
        if let Some(class) = record.class {
            let cost = self.shares.cost(record.prompt_tokens, u64::from(record.output_tokens));
            self.shares.charge(now, class, cost - charged);
        }
        if record.source != LEASES {
            self.inference(record, end);
        }
    }

    fn inference(&mut self, record: &RequestRecord, end: End) {
        let model = |backend: BackendId| self.models.get(backend.index()).copied().flatten();
        let who = Who {
            class: record.class,
            source: record.source,
            model: record.backend.and_then(model),
        };
        add(&mut self.duration, ((who, end), DURATION), record.e2e().secs_f64());
        // An answer that came as one has no first token apart from its end.
        if record.first_token.is_some_and(|first| first < record.closed) {
            if let Some(first) = record.ttft() {
                add(&mut self.first_token, (who, FIRST_TOKEN), first.secs_f64());
            }
            if let Some(seconds) = record.tpot_secs() {
                add(&mut self.per_token, (who, PER_TOKEN), seconds);
            }
        }
        let tokens = [(Side::Input, record.prompt_tokens), (Side::Output, record.output_tokens)];
        for (side, count) in tokens {
            add(&mut self.tokens, ((who, side), TOKENS), f64::from(count));
        }
    }
}

fn add<K: Ord>(
    series: &mut BTreeMap<K, Histogram>,
    (key, bounds): (K, &'static [f64]),
    value: f64,
) {
    series.entry(key).or_insert_with(|| Histogram::new(bounds)).add(value);
}

#[cfg(test)]
pub(super) mod tests {
    use plimsoll_base::{Alarm, Bound, Reason, Refusal, TenantId};

    use super::*;

    pub fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    /// A request of 10 prompt tokens and 11 output tokens that arrived at nought, was let in after
    /// 100 ms, delivered its first token at 300 ms, and one every 20 ms then.
    pub fn record(id: u64, class: u16) -> RequestRecord {
        RequestRecord {
            class: Some(ClassId(class)),
            backend: Some(BackendId::first(0)),
            outcome: Outcome::Ended(End::Finished),
            dispatched: Some(at(100)),
            first_token: Some(at(300)),
            last_token: Some(at(500)),
            closed: at(500),
            tokens: 30,
            prompt_tokens: 10,
            output_tokens: 11,
            output_cap: 20,
            ..RequestRecord::new(RequestId(id), at(0))
        }
    }

    /// Facts as a run tells them: one stream and one answer as a whole that finish, one that expires in the queue, one
    /// that is refused, a lease, and an alarm.
    pub fn told() -> Vec<(Time, Fact)> {
        let dispatched = Fact::Dispatched {
            id: RequestId(0),
            tenant: TenantId(0),
            class: ClassId(0),
            backend: BackendId::first(0),
            reason: Reason::ArrivalOrder,
            bound: None,
            arrived: at(0),
            prompt_tokens: 10,
            tokens: 30,
        };
        let expired = RequestRecord {
            outcome: Outcome::Ended(End::Expired),
            dispatched: None,
            first_token: None,
            last_token: None,
            closed: at(3000),
            backend: None,
            ..record(1, 1)
        };
        let refused = RequestRecord {
            outcome: Outcome::Refused(Refusal::Unclassified),
            class: None,
            closed: at(0),
            ..expired
        };
        let whole = RequestRecord { first_token: Some(at(500)), ..record(4, 0) };
        let lease = RequestRecord { source: LEASES, ..record(3, 0) };
        let alarm = Alarm {
            kind: AlarmKind::NoService,
            victim: ClassId(1),
            culprit: Some(ClassId(0)),
            resource: Some(Bound::Seats),
            since: at(500),
        };
        vec![
            (at(0), Fact::Bound { class: ClassId(1), bound: Some(Bound::Seats) }),
            (at(0), Fact::Closed(refused)),
            (at(100), dispatched),
            (at(500), Fact::Closed(record(0, 0))),
            (at(500), Fact::Closed(lease)),
            (at(500), Fact::Closed(whole)),
            (at(2000), Fact::Alarmed(alarm)),
            (at(3000), Fact::Closed(expired)),
        ]
    }

    pub fn numbers() -> Numbers {
        let file = super::super::tests::file();
        let mut numbers = Numbers::new(&file, &Places::new(&file, &Default::default()));
        for (now, fact) in told() {
            numbers.observe(now, &fact);
        }
        numbers
    }

    #[test]
    fn each_fact_is_counted_once() {
        let numbers = numbers();
        let who = Who { class: Some(ClassId(0)), source: SourceId(0), model: Some(ModelId(0)) };
        assert_eq!(numbers.duration.len(), 1, "leases are no inference");
        let counts = |histogram: &Histogram| histogram.count();
        assert_eq!(counts(&numbers.duration[&(who, End::Finished)]), 2);
        assert_eq!(counts(&numbers.first_token[&who]), 1, "only the stream has one");
        let mut wanted = Histogram::new(PER_TOKEN);
        wanted.add(0.02);
        assert_eq!(numbers.per_token[&who], wanted);
        let mut wanted = Histogram::new(TOKENS);
        (0..2).for_each(|_| wanted.add(11.0));
        assert_eq!(numbers.tokens[&(who, Side::Output)], wanted);
        let mut wanted = Histogram::new(QUEUE_WAIT);
        wanted.add(0.1);
        assert_eq!(numbers.queue_wait[&ClassId(0)], wanted);
        let mut wanted = Histogram::new(QUEUE_WAIT);
        wanted.add(3.0);
        assert_eq!(numbers.queue_wait[&ClassId(1)], wanted, "it left before its turn");
        let requests: Vec<_> = numbers.requests.iter().map(|(key, count)| (*key, *count)).collect();
        let class = |id| Some(ClassId(id));
        let expected = [
            ((None, Outcome::Refused(Refusal::Unclassified)), 1),
            ((class(0), Outcome::Ended(End::Finished)), 3),
            ((class(1), Outcome::Ended(End::Finished)), 0),
            ((class(1), Outcome::Ended(End::Expired)), 1),
        ];
        assert_eq!(requests, expected);
        assert_eq!(numbers.alarms[&(ClassId(1), AlarmKind::NoService)], 1);
        assert!(numbers.charged.is_empty(), "what is closed is forgotten");
    }

    #[test]
    fn service_is_charged_by_estimate_and_corrected() {
        let mut numbers = numbers();
        numbers.shares.pass(at(4000));
        let part = numbers.shares.part(ClassId(0));
        assert_eq!(part.received, 1.0);
        // 50 were charged, 32 used; the correction falls into the same second.
        assert_eq!(numbers.shares.cost(10, 11), 32.0);
        assert_eq!(numbers.shares.part(ClassId(1)).received, 0.0);
    }
}
