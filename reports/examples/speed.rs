//! How long a report takes and how large it is: `cargo run --release -p plimsoll-report --example speed
//! -- 100000 10000000` invents so many requests twice, once for nobody and once for a report, and prints
//! how much longer the second took (the fold), the time of the numbers and of the page, and its size.

mod invented;

use std::hint::black_box;
use std::time::{Duration, Instant};

use plimsoll_base::{Fact, Observer, RequestRecord, Time};
use plimsoll_report::{Ledger, page, summarise};

/// Hears every fact and keeps nothing.
struct Nobody;

impl Observer for Nobody {
    fn observe(&mut self, now: Time, fact: &Fact) {
        black_box((now, fact));
    }
    fn close(&mut self, now: Time, record: &RequestRecord) {
        black_box((now, record));
    }
}

fn main() {
    for argument in std::env::args().skip(1) {
        let requests: u64 = argument.parse().expect("a number of requests");
        let plan = invented::plan();
        let (invented, ()) = timed(|| invented::run(requests, &mut Nobody));
        let mut ledger = Ledger::new(&plan);
        let (told, ()) = timed(|| invented::run(requests, &mut ledger));
        let ledgers = [ledger];
        let (numbers, summary) = timed(|| summarise(&plan, &ledgers, false));
        let (rendered, page) = timed(|| page(&plan, &summary, &ledgers, None));
        let page = page.expect("our own template renders");
        let fold = told.saturating_sub(invented);
        println!(
            "{requests} requests: report {:.2} s (fold {:.2} s, numbers {:.3} s, page {:.3} s), \
             {:.2} MB; to invent them {:.2} s",
            (fold + numbers + rendered).as_secs_f64(),
            fold.as_secs_f64(),
            numbers.as_secs_f64(),
            rendered.as_secs_f64(),
            page.len() as f64 / 1e6,
            invented.as_secs_f64()
        );
    }
}

fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let made = what();
    (begun.elapsed(), made)
}
