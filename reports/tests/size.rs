//! A page does not grow with the run.

#[path = "../examples/invented/mod.rs"]
mod invented;

use plimsoll_report::{Ledger, page, summarise};

/// What a page may weigh, in bytes.
const MOST: usize = 2_000_000;

fn page_of(requests: u64) -> String {
    let plan = invented::plan();
    let mut ledger = Ledger::new(&plan);
    invented::run(requests, &mut ledger);
    let ledgers = [ledger];
    let summary = summarise(&plan, &ledgers, false);
    assert_eq!(summary.run.counts.offered, requests);
    page(&plan, &summary, &ledgers, None).expect("our own template renders")
}

#[test]
fn a_page_of_many_requests_is_small_and_that_of_more_no_larger() {
    let (some, more) = (page_of(100_000).len(), page_of(400_000).len());
    assert!(some < MOST, "{some} bytes at 100,000 requests");
    // Bins double their width as a run grows: there are between half as many and as many as before.
    assert!(more < some + some / 4, "{some} bytes at 100,000 requests, {more} at 400,000");
}
