//! Isolation and placement as a file states them, and as the allocator gets them.

use std::path::Path;

use plimsoll_base::{ClassId, PoolId, SiteId, Span};
use plimsoll_policy::config::{
    Concurrency, Dedicated, LoadBreak, LocalFirst, Partition, Place, Quota, QuotaGroup, QuotaUnit,
};
use plimsoll_scenario::load;

#[test]
fn every_rule_is_read_as_it_is_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bad_input/_isolation.toml");
    let policy = load(&path, &[]).unwrap_or_else(|wrong| panic!("{wrong}")).model.policy;
    let (chat, batch) = (ClassId(0), ClassId(1));
    assert_eq!(policy.sites, ["local", "edge", "central"]);
    assert_eq!(policy.models, ["small", "large"]);
    assert_eq!(policy.classes.iter().map(|class| class.sites).collect::<Vec<_>>(), [0, 0b100]);
    let all = QuotaGroup { nominal: 100, ..QuotaGroup::default() };
    let own = QuotaGroup {
        parent: Some(0),
        nominal: 60,
        borrow_max: Some(10),
        lend_max: Some(5),
        classes: vec![chat],
    };
    let shares_ppm = vec![(batch, 300_000), (chat, 500_000)];
    assert_eq!(
        policy.partition,
        [
            Partition::Dedicated(Dedicated {
                class: chat,
                pools: vec![PoolId(0)],
                exclusive: true
            }),
            Partition::Quota(Quota { unit: QuotaUnit::Tokens, groups: vec![all, own] }),
            Partition::Concurrency(Concurrency { shares_ppm }),
        ]
    );
    let sites = vec![SiteId(0), SiteId(1), SiteId(2)];
    let (spill_wait, return_after) = (Span::from_secs(5), Span::from_secs(30));
    let load = LoadBreak { factor_ppm: 1_500_000, tokens: 4_096 };
    assert_eq!(
        policy.place,
        [
            Place::LocalFirst(LocalFirst { sites, spill_wait, return_after }),
            Place::SessionAffinity { sessions_max: 10, load },
            Place::PowerOfTwo { seed: 1 },
        ]
    );
}

#[test]
fn one_rule_needs_no_list() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bad_input/_sound.toml");
    for (written, expected) in [
        ("round-robin", Place::RoundRobin),
        ("least-tokens", Place::LeastTokens),
        ("{ rule = \"power-of-two\", seed = 7 }", Place::PowerOfTwo { seed: 7 }),
    ] {
        let set = [format!("policy.place={written}")];
        let policy = load(&path, &set).unwrap_or_else(|wrong| panic!("{wrong}")).model.policy;
        assert_eq!(policy.place, [expected], "{written}");
    }
}
