//! The log of any storm under any policy has a report: nothing panics, and requests and time are
//! conserved (the reports assert it).

#[path = "../../policies/tests/support/inputs.rs"]
mod inputs;
#[path = "../../policies/tests/support/naive.rs"]
#[allow(dead_code, reason = "the storm names it")]
mod naive;
#[path = "../../policies/tests/support/storm.rs"]
#[allow(dead_code, reason = "only its policies and acts are used here")]
mod storm;

use plimsoll_base::Time;
use plimsoll_planner::{Checked, Survey, fold};
use plimsoll_policy::log::{Header, Reader};
use plimsoll_policy::{Config, Input};
use plimsoll_report::{Ledger, Summary};
use proptest::prelude::*;

fn header(policy: Config) -> Header {
    Header { scenario: "storm".into(), policy, ..Header::default() }
}

fn report(log: &[u8], checked: Checked) -> Summary {
    let open = || Reader::new(log).expect("it is whole");
    let survey = Survey::of(open()).expect("it is whole");
    let plan = survey.plan(open().header());
    let folded = fold(open(), (&survey, checked), Ledger::new(&plan)).expect("it replays");
    assert_eq!(folded.differs_at, None);
    let ledgers = [folded.observer];
    let summary = plimsoll_report::summarise(&plan, &ledgers, survey.is_cut());
    plimsoll_report::page(&plan, &summary, &ledgers, None).expect("the template renders");
    summary
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_storm_has_a_report(
        config in storm::config(), acts in storm::acts(), part in 0.0f64..1.0,
    ) {
        let inputs = inputs::inputs(acts);
        let (before, after) = inputs.split_at((inputs.len() as f64 * part) as usize);
        let header = header(config);
        let (log, allocator) = inputs::logged(&header, before);
        assert_eq!(report(&log, Checked::Yes), report(&log, Checked::No));
        // A second log begins with what the first one left.
        let now = before.last().map_or(Time::ZERO, |(now, _)| *now);
        let joined = before.iter().filter(|(_, input)| matches!(input, Input::Joined(..)));
        let begin = joined.map(|(_, input)| input.clone()).chain(allocator.handover());
        let inputs = begin.map(|input| (now, input)).chain(after.iter().cloned());
        let (log, _) = inputs::logged(&header, &inputs.collect::<Vec<_>>());
        report(&log, Checked::Yes);
    }
}
