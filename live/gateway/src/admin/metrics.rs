//! The page of metrics.

use std::sync::atomic::Ordering;

use plimsoll_base::{ClassId, End, Outcome, SourceId};
use plimsoll_config::gateway::GatewayFile;
use plimsoll_driver::{LogState, Timing};

use super::look::Look;
use super::meter::{Numbers, Side, Who};
use super::text::{Histogram, Kind, Page};
use crate::places::Place;
use crate::state::{Current, Shared};

/// What stands for a class where no rule gave one; no name of a class has parentheses.
const NO_CLASS: &str = "(none)";
/// The upper bounds of [`Timing`], in seconds; the last bucket has none.
const DECISION: &[f64] = &[
    1e-6, 2e-6, 4e-6, 8e-6, 16e-6, 32e-6, 64e-6, 128e-6, 256e-6, 512e-6, 1024e-6, 2048e-6, 4096e-6,
    8192e-6, 16384e-6,
];

/// Everything in Prometheus' text format.
pub(crate) fn page(
    look: &Look,
    (shared, current): (&Shared, &Current),
    numbers: &Numbers,
) -> String {
    let mut page = Page::default();
    inference(&mut page, numbers, &current.file);
    counted(&mut page, numbers, &current.file);
    classes(&mut page, look, (numbers, &current.file));
    backends(&mut page, look, current);
    itself(&mut page, look, shared);
    page.finish()
}

fn class_name(file: &GatewayFile, class: Option<ClassId>) -> String {
    class.map_or_else(|| NO_CLASS.to_owned(), |class| file.names.class(class))
}

/// The name that OpenTelemetry has for a route.
fn operation(source: SourceId) -> &'static str {
    match source.0 {
        0 => "chat",
        1 => "text_completion",
        2 => "embeddings",
        _ => "",
    }
}

/// `gen_ai.*` of OpenTelemetry, as Prometheus spells it.
fn inference(page: &mut Page, numbers: &Numbers, file: &GatewayFile) {
    let model = |who: &Who| who.model.map(|model| file.config.models[model.index()].as_str());
    let series = |who: &Who| (class_name(file, who.class), operation(who.source), model(who));
    let help = "From arrival to the end, queueing included, of inference that was let in.";
    let mut metric = page.metric("gen_ai_server_request_duration_seconds", Kind::Histogram, help);
    for ((who, end), histogram) in &numbers.duration {
        let (class, operation, model) = series(who);
        let error = match end {
            End::Finished => "",
            End::Failed | End::Cancelled | End::Expired | End::Evicted => {
                Outcome::Ended(*end).name()
            }
        };
        let labels = labels((&class, operation, model), ("error_type", error));
        metric.histogram(&labels, histogram);
    }
    let help = "From arrival to the first token, queueing included, of streams.";
    let mut metric =
        page.metric("gen_ai_server_time_to_first_token_seconds", Kind::Histogram, help);
    for (who, histogram) in &numbers.first_token {
        let (class, operation, model) = series(who);
        metric.histogram(&labels((&class, operation, model), ("", "")), histogram);
    }
    let help = "Mean time a token after the first, of streams of two tokens or more.";
    let mut metric =
        page.metric("gen_ai_server_time_per_output_token_seconds", Kind::Histogram, help);
    for (who, histogram) in &numbers.per_token {
        let (class, operation, model) = series(who);
        metric.histogram(&labels((&class, operation, model), ("", "")), histogram);
    }
    let help = "Tokens a request had used when it ended; the sums are the tokens in all.";
    let mut metric = page.metric("gen_ai_client_token_usage", Kind::Histogram, help);
    for ((who, side), histogram) in &numbers.tokens {
        let (class, operation, model) = series(who);
        let side = match side {
            Side::Input => "input",
            Side::Output => "output",
        };
        let labels = labels((&class, operation, model), ("gen_ai_token_type", side));
        metric.histogram(&labels, histogram);
    }
}

fn labels<'a>(
    (class, operation, model): (&'a str, &'a str, Option<&'a str>),
    more: (&'a str, &'a str),
) -> [(&'a str, &'a str); 4] {
    let model = model.unwrap_or("");
    [("class", class), ("gen_ai_operation_name", operation), ("gen_ai_request_model", model), more]
}

/// What the fold over facts has counted of our own.
fn counted(page: &mut Page, numbers: &Numbers, file: &GatewayFile) {
    let help = "From arrival until the allocator let a request go, or until it left the queue \
                before; what was refused did not wait.";
    let mut metric = page.metric("plimsoll_queue_wait_seconds", Kind::Histogram, help);
    for (class, histogram) in &numbers.queue_wait {
        metric.histogram(&[("class", &file.names.class(*class))], histogram);
    }
    let help = "Requests and leases that are over, by how.";
    let mut metric = page.metric("plimsoll_requests_total", Kind::Counter, help);
    for ((class, outcome), count) in &numbers.requests {
        let class = class_name(file, *class);
        metric.sample(&[("class", &class), ("outcome", outcome.name())], count);
    }
    let help = "Alarms of the detector, one an episode.";
    let mut metric = page.metric("plimsoll_alarms_total", Kind::Counter, help);
    for ((class, kind), count) in &numbers.alarms {
        metric.sample(&[("class", &file.names.class(*class)), ("kind", kind.name())], count);
    }
    let help = "Time during which an alarm no_service, lag, livelock or inversion of a class \
                stood, to a quarter of a second; the culprit holds most of what it waited for.";
    let mut metric = page.metric("plimsoll_starved_seconds_total", Kind::Counter, help);
    for ((class, culprit), span) in &numbers.starved {
        let culprit = class_name(file, *culprit);
        let labels = [("class", &*file.names.class(*class)), ("culprit", &culprit)];
        metric.sample(&labels, span.secs_f64());
    }
}

/// How it stands with each class now.
fn classes(page: &mut Page, look: &Look, (numbers, file): (&Numbers, &GatewayFile)) {
    let classes = || (0..).map(ClassId).zip(&look.snapshot.classes);
    let mut gauge = |name, help, value: &dyn Fn(ClassId) -> f64| {
        let mut metric = page.metric(name, Kind::Gauge, help);
        for (class, _) in classes() {
            metric.sample(&[("class", &file.names.class(class))], value(class));
        }
    };
    let of = |class: ClassId| &look.snapshot.classes[class.index()];
    let part = |class: ClassId| numbers.shares.part(class);
    gauge("plimsoll_queued", "Requests that wait in the allocator.", &|class| {
        f64::from(of(class).queued)
    });
    gauge("plimsoll_oldest_wait_seconds", "How long the oldest of them has waited.", &|class| {
        of(class).oldest.map_or(0.0, |oldest| look.now.saturating_since(oldest).secs_f64())
    });
    gauge("plimsoll_outstanding", "Requests outstanding at backends.", &|class| {
        f64::from(of(class).outstanding)
    });
    gauge("plimsoll_outstanding_tokens", "Their estimated tokens.", &|class| {
        of(class).outstanding_tokens as f64
    });
    let help = "Part of all service of the latest minute that the class received, at the share \
                rule's prices.";
    gauge("plimsoll_share_received", help, &|class| part(class).received);
    let help = "Part that was due to it: weighted max-min, second by second, between classes that \
                waited all the second (and not for a limit of their own) and what others used.";
    gauge("plimsoll_share_entitled", help, &|class| part(class).entitled);
    let help = "Part received minus part entitled; below 0 it got too little.";
    gauge("plimsoll_share_error", help, &|class| part(class).error());
}

/// How it stands with each backend now.
fn backends(page: &mut Page, look: &Look, current: &Current) {
    let name = |place: &Place| match place {
        Place::Backend(upstream) => Some(upstream.backend.name.clone()),
        Place::Resource(index) => Some(current.file.resources[*index].name.clone()),
        Place::Removed(_) => None,
    };
    let mut gauge = |metric, help, value: &dyn Fn(u32) -> Option<f64>| {
        let mut metric = page.metric(metric, Kind::Gauge, help);
        for (slot, place) in current.places.iter() {
            if let (Some(name), Some(value)) = (name(place), value(slot)) {
                metric.sample(&[("backend", &name)], value);
            }
        }
    };
    let load = |slot| look.backend(slot).and_then(|backend| backend.load);
    gauge("plimsoll_backend_up", "Whether the backend is there.", &|slot| {
        let is_here = look.backend(slot).is_some_and(|backend| backend.is_here);
        Some(f64::from(u8::from(is_here)))
    });
    gauge("plimsoll_backend_outstanding", "Requests outstanding there.", &|slot| {
        look.held(slot).map(|held| f64::from(held.requests.0))
    });
    gauge("plimsoll_backend_running", "Requests that it says it runs.", &|slot| {
        load(slot).map(|(_, load)| f64::from(load.running))
    });
    gauge("plimsoll_backend_waiting", "Requests that it says wait inside it.", &|slot| {
        load(slot).map(|(_, load)| f64::from(load.waiting))
    });
    gauge("plimsoll_backend_kv_used", "Part of its KV memory that it says is held.", &|slot| {
        load(slot).map(|(_, load)| f64::from(load.kv_used_ppm) / 1e6)
    });
    gauge("plimsoll_backend_report_age_seconds", "How long ago it said so.", &|slot| {
        load(slot).map(|(as_of, _)| look.now.saturating_since(as_of).secs_f64())
    });
}

/// The gateway itself.
fn itself(page: &mut Page, look: &Look, shared: &Shared) {
    let help = "How long the allocator took for an input with all decisions that followed.";
    let Timing { counts, sum } = &look.timing;
    page.metric("plimsoll_policy_decision_seconds", Kind::Histogram, help)
        .histogram(&[], &Histogram::counted(DECISION, counts, sum.secs_f64()));
    let counts = &shared.counts;
    let value = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let open = shared.connections();
    page.single("plimsoll_connections", Kind::Gauge, "Connections of clients.", open);
    let help = "Connections that clients opened.";
    let opened = value(&counts.connections);
    page.single("plimsoll_connections_total", Kind::Counter, help, opened);
    let help = "Connections that were closed at once because there were too many.";
    let refused = value(&counts.connections_refused);
    page.single("plimsoll_connections_refused_total", Kind::Counter, help, refused);
    let help = "Requests that were turned away before the allocator was asked.";
    page.single("plimsoll_turned_away_total", Kind::Counter, help, value(&counts.turned_away));
    let mut metric =
        page.metric("plimsoll_http_responses_total", Kind::Counter, "Answers, by status.");
    for (digit, status) in (2..).zip(["2xx", "3xx", "4xx", "5xx"]) {
        metric.sample(&[("status", status)], value(&counts.answered[digit]));
    }
    let help = "Streams that a backend broke off, and whose clients were told so.";
    page.single(
        "plimsoll_broken_streams_total",
        Kind::Counter,
        help,
        value(&counts.broken_streams),
    );
    let draining = u8::from(look.snapshot.draining || shared.is_draining());
    page.single("plimsoll_draining", Kind::Gauge, "Whether nothing new is taken in.", draining);
    let (bytes, broken) = match look.log {
        LogState::Off => return,
        LogState::Written(bytes) => (Some(bytes), 0),
        LogState::Broken(_) => (None, 1),
    };
    if let Some(bytes) = bytes {
        let help = "Bytes of the decision log, all files since the start.";
        page.single("plimsoll_decision_log_bytes_total", Kind::Counter, help, bytes);
    }
    let help = "Whether the decision log could not be written any more.";
    page.single("plimsoll_decision_log_broken", Kind::Gauge, help, broken);
}

#[cfg(test)]
mod tests {
    use plimsoll_base::Time;
    use plimsoll_policy::{ClassState, Snapshot};

    use super::super::meter::tests::{at, numbers};
    use super::super::tests::file;
    use super::*;

    #[test]
    fn what_facts_told_stands_on_the_page() {
        let (numbers, file) = (numbers(), file());
        let look = Look {
            now: at(5000),
            snapshot: Snapshot {
                now: at(5000),
                draining: false,
                classes: vec![
                    ClassState::default(),
                    ClassState { queued: 2, oldest: Some(Time::ZERO), ..ClassState::default() },
                ],
                backends: Vec::new(),
            },
            backends: Vec::new(),
            alarms: Vec::new(),
            timing: Timing::default(),
            log: LogState::Off,
        };
        let mut page = Page::default();
        inference(&mut page, &numbers, &file);
        counted(&mut page, &numbers, &file);
        classes(&mut page, &look, (&numbers, &file));
        let page = page.finish();
        let chat = "{class=\"chat\",gen_ai_operation_name=\"chat\",gen_ai_request_model=\"llama\"";
        let wanted = [
            format!("gen_ai_server_request_duration_seconds_bucket{chat},le=\"0.64\"}} 2\n"),
            format!("gen_ai_server_request_duration_seconds_sum{chat}}} 1\n"),
            format!("gen_ai_server_time_to_first_token_seconds_sum{chat}}} 0.3\n"),
            format!("gen_ai_server_time_per_output_token_seconds_count{chat}}} 1\n"),
            format!("gen_ai_client_token_usage_sum{chat},gen_ai_token_type=\"output\"}} 22\n"),
            "plimsoll_queue_wait_seconds_sum{class=\"batch\"} 3\n".to_owned(),
            "plimsoll_requests_total{class=\"(none)\",outcome=\"refused:unclassified\"} 1\n"
                .to_owned(),
            "plimsoll_requests_total{class=\"batch\",outcome=\"expired\"} 1\n".to_owned(),
            "plimsoll_alarms_total{class=\"batch\",kind=\"no_service\"} 1\n".to_owned(),
            "plimsoll_queued{class=\"batch\"} 2\n".to_owned(),
            "plimsoll_oldest_wait_seconds{class=\"batch\"} 5\n".to_owned(),
        ];
        for line in wanted {
            assert!(page.contains(&line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn the_bounds_of_decisions_are_those_of_the_driver() {
        for (index, bound) in DECISION.iter().enumerate() {
            assert!((Timing::bound(index).secs_f64() - bound).abs() < 1e-12, "{bound}");
        }
        assert_eq!(DECISION.len() + 1, Timing::BUCKETS);
    }
}
