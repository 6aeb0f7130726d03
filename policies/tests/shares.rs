//! The share rules on scripts: inputs at instants, and who goes.

#[path = "support/script.rs"]
mod script;
mod support;

use plimsoll_base::{End, RequestId, Span, TenantId, WorkflowId};
use plimsoll_policy::config::{Capacity, Class, Per, Share, TokenCost};
use plimsoll_policy::{
    Action, Allocator, Config, ConfigError, Decision, Field, Input, Problem, RequestInfo, Used,
};
use script::{end, matched as cached, new, play, seats};
use support::{arrive, class, config, join, request};

const PRICE: TokenCost = TokenCost { prompt: 1, output: 1 };

/// Hands in the inputs at one instant; who goes with each, and why.
fn check(policy: Config, script: Vec<(Input, &'static str)>) {
    play(policy, script.into_iter().map(|(input, line)| (0, input, line)).collect(), tell);
}

fn tell(decision: &Decision) -> String {
    match decision.action {
        Action::Dispatch(..) => format!("{} {}", decision.id, decision.reason.name()),
        Action::Reject(refusal, _) => format!("{} {}", decision.id, refusal.name()),
        Action::Close(_) | Action::Preempt(_) | Action::Cancel(_) => "?".to_owned(),
    }
}

fn one_seat() -> Input {
    seats(1)
}
fn of(tenant: u32, workflow: u64, prompt_tokens: u32) -> RequestInfo {
    let (tenant, workflow) = (TenantId(tenant), WorkflowId(workflow));
    RequestInfo { tenant, workflow, ..request(0, prompt_tokens, 0) }
}

#[test]
fn start_time_fair_begins_at_the_virtual_time() {
    let share = Share::StartTimeFair { per: Per::Class, cost: PRICE };
    check(
        config(share, vec![class(); 3]),
        vec![
            (one_seat(), ""),
            (new(0, 0, 10), "0 start_time"),
            (new(1, 0, 10), ""),
            (new(2, 0, 10), ""),
            // Class 0 starts at 10 and class 1 at 0.
            (new(3, 1, 15), ""),
            (end(0, 10), "3 start_time"),
            (end(3, 15), "1 start_time"),
            // The time is 10. Class 2 starts there; class 1 finished at 15, class 0 will at 20.
            (new(4, 2, 1), ""),
            (new(5, 1, 1), ""),
            (end(1, 10), "4 start_time"),
            (end(4, 1), "5 start_time"),
            (end(5, 1), "2 start_time"),
            (end(2, 10), ""),
            // All have rested, so all start level, the first number first.
            (new(6, 2, 1), "6 start_time"),
            (new(7, 2, 1), ""),
            (new(8, 0, 1), ""),
            (end(6, 1), "8 start_time"),
        ],
    );
}

#[test]
fn start_time_fair_is_not_drawn_back_by_a_class_that_steps_aside() {
    let share = |rule: fn(Per, TokenCost) -> Share| rule(Per::Class, PRICE);
    let capped = Class { requests_max: Some(1), ..class() };
    let policy = |share| config(share, vec![capped.clone(), class(), class()]);
    let script = |reason: &'static str, last: &'static str| {
        let line = |id: u64| -> &'static str { format!("{id} {reason}").leak() };
        vec![
            (join(0, 2, 1_000), ""),
            // Class 0 runs one, at its cap, and has the least counter for all that follows.
            (new(0, 0, 1), line(0)),
            (new(1, 0, 1), ""),
            (new(2, 1, 50), line(2)),
            (new(3, 1, 50), ""),
            (end(2, 50), line(3)),
            (new(4, 1, 50), ""),
            (end(3, 50), line(4)),
            (new(5, 1, 50), ""),
            (new(6, 2, 100), ""),
            (new(7, 2, 100), ""),
            (end(4, 50), line(6)),
            (end(6, 100), last),
        ]
    };
    // The clock is at 100, where class 2 begins; its second comes after class 1's at 150.
    check(
        policy(share(|per, cost| Share::StartTimeFair { per, cost })),
        script("start_time", "5 start_time"),
    );
    // The counter lets it begin at 1, next to the class that waits for itself.
    check(
        policy(share(|per, cost| Share::VirtualTokenCounter { per, cost })),
        script("virtual_counter", "7 virtual_counter"),
    );
}

#[test]
fn stride_counts_requests_by_weight() {
    let classes = vec![Class { weight: 2, ..class() }, class()];
    check(
        config(Share::Stride { per: Per::Class }, classes),
        vec![
            (new(0, 0, 900), ""),
            (new(1, 0, 900), ""),
            (new(2, 0, 900), ""),
            (new(3, 1, 1), ""),
            (new(4, 1, 1), ""),
            (one_seat(), "0 stride"),
            (end(0, 900), "3 stride"),
            (end(3, 1), "1 stride"),
            (end(1, 900), "2 stride"),
            (end(2, 900), "4 stride"),
        ],
    );
}

#[test]
fn dominant_resource_compares_prompts_with_outputs() {
    // A prompt token takes 1 µs, an output token 10 µs; memory is plenty.
    let capacity = Capacity {
        prefill_tokens: 1_000_000,
        decode_tokens: 100_000,
        kv_tokens: 1_000_000_000,
        output_token: Span::from_micros(1),
    };
    let share = Share::DominantResource { per: Per::Class, capacity };
    let reads = |id| arrive(id, request(0, 100, 1));
    let writes = |id| arrive(id, request(1, 1, 20));
    let used = |id, prompt_tokens, output_tokens| {
        Input::Ended(RequestId(id), End::Finished, Used { prompt_tokens, output_tokens })
    };
    check(
        config(share.clone(), vec![class(), class()]),
        vec![
            (reads(0), ""),
            (reads(1), ""),
            (reads(2), ""),
            (writes(3), ""),
            (writes(4), ""),
            (writes(5), ""),
            (one_seat(), "0 dominant_share"),
            (used(0, 100, 1), "3 dominant_share"),
            // 100 µs against 200.
            (used(3, 1, 20), "1 dominant_share"),
            (used(1, 100, 1), "2 dominant_share"),
            // 300 µs against 200, of which 150 come back.
            (used(2, 100, 1), "4 dominant_share"),
            (used(4, 1, 5), "5 dominant_share"),
        ],
    );
    // With little memory it is what both have most of: 101 against 420 token steps of 1 ms.
    let capacity = Capacity { kv_tokens: 1, output_token: Span::from_millis(1), ..capacity };
    check(
        config(Share::DominantResource { per: Per::Class, capacity }, vec![class(), class()]),
        vec![
            (one_seat(), ""),
            (writes(0), "0 dominant_share"),
            (writes(1), ""),
            (reads(2), ""),
            (reads(3), ""),
            (reads(4), ""),
            (reads(5), ""),
            (reads(6), ""),
            (reads(7), ""),
            (used(0, 1, 20), "2 dominant_share"),
            (used(2, 100, 1), "3 dominant_share"),
            (used(3, 100, 1), "4 dominant_share"),
            (used(4, 100, 1), "5 dominant_share"),
            (used(5, 100, 1), "6 dominant_share"),
            (used(6, 100, 1), "1 dominant_share"),
        ],
    );
}

#[test]
fn the_longest_prefix_goes_first_among_those_with_credit() {
    let share = Share::DeficitLongestPrefix { per: Per::Class, quantum: 50, cost: PRICE };
    let policy = config(share, vec![class(), class()]);
    assert!(Allocator::new(policy.clone()).expect("valid").needs().matches);
    check(
        policy,
        vec![
            (new(0, 0, 40), ""),
            (cached(1, 30), ""),
            (new(1, 1, 60), ""),
            (cached(2, 90), ""),
            (new(2, 0, 100), ""),
            (cached(3, 10), ""),
            (new(3, 1, 60), ""),
            // The best match costs its flow 10 of 50.
            (one_seat(), "2 deficit_prefix"),
            (end(2, 10), "1 deficit_prefix"),
            // It turned out to be cold: class 1 owes 10 and class 0 has 40, so no match helps.
            (end(1, 60), "0 deficit_prefix"),
            (end(0, 40), "3 deficit_prefix"),
        ],
    );
}

#[test]
fn debts_outlast_an_empty_queue_and_savings_do_not() {
    let share = Share::DeficitLongestPrefix { per: Per::Class, quantum: 50, cost: PRICE };
    check(
        config(share, vec![class(), class()]),
        vec![
            (one_seat(), ""),
            (new(0, 0, 120), "0 deficit_prefix"),
            (new(1, 1, 10), ""),
            // A round gives class 1 credit of 50, of which 40 are lost as it runs empty.
            (end(0, 120), "1 deficit_prefix"),
            // Both begin again, class 0 with a debt of 70: class 1 is first.
            (new(2, 0, 10), ""),
            (new(3, 1, 60), ""),
            (new(4, 1, 10), ""),
            (end(1, 10), "3 deficit_prefix"),
            // Owing 20 and 10: a round more gives both credit, the older request goes.
            (end(3, 60), "2 deficit_prefix"),
            (end(2, 10), "4 deficit_prefix"),
        ],
    );
}

#[test]
fn a_workflow_has_an_account_of_its_own() {
    let share = Share::VirtualTokenCounter { per: Per::Workflow, cost: PRICE };
    check(
        config(share, vec![class()]),
        vec![
            (arrive(0, of(0, 7, 10)), ""),
            (arrive(1, of(1, 7, 10)), ""),
            (arrive(2, of(0, 8, 10)), ""),
            (arrive(3, of(0, 0, 10)), ""),
            (arrive(4, of(0, 0, 10)), ""),
            (one_seat(), "0 virtual_counter"),
            (end(0, 10), "2 virtual_counter"),
            (end(2, 10), "3 virtual_counter"),
            (end(3, 10), "1 virtual_counter"),
            (end(1, 10), "4 virtual_counter"),
        ],
    );
}

#[test]
fn a_newcomer_is_refused_when_every_account_is_at_work() {
    let share = Share::VirtualTokenCounter { per: Per::Tenant, cost: PRICE };
    check(
        Config { accounts_max: 2, ..config(share, vec![class()]) },
        vec![
            (one_seat(), ""),
            (arrive(0, of(0, 0, 10)), "0 virtual_counter"),
            (arrive(1, of(1, 0, 10)), ""),
            (arrive(2, of(2, 0, 10)), "2 queue_full"),
            (arrive(3, of(1, 0, 10)), ""),
            (end(0, 10), "1 virtual_counter"),
            // Tenant 0 rests; its place is free.
            (arrive(4, of(2, 0, 10)), ""),
            (arrive(5, of(0, 0, 10)), "5 queue_full"),
        ],
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |share: Share, field: Field, problem: Problem| {
        let found = Allocator::new(config(share, vec![class()])).err();
        assert_eq!(found, Some(ConfigError::Policy(field, problem)));
    };
    let free = TokenCost { prompt: 0, output: 0 };
    let per = Per::Tenant;
    refused(Share::StartTimeFair { per, cost: free }, Field::Cost, Problem::CostsNothing);
    let share = Share::DeficitLongestPrefix { per, quantum: 0, cost: PRICE };
    refused(share, Field::Quantum, Problem::Below(1));
    let capacity = Capacity {
        prefill_tokens: 1,
        decode_tokens: 1,
        kv_tokens: 1,
        output_token: Span::from_nanos(1),
    };
    let share = |capacity| Share::DominantResource { per, capacity };
    let wrong = Capacity { prefill_tokens: 0, ..capacity };
    refused(share(wrong), Field::PrefillTokens, Problem::Below(1));
    let wrong = Capacity { decode_tokens: u64::MAX, ..capacity };
    refused(share(wrong), Field::DecodeTokens, Problem::Above(1_000_000_000_000));
    let wrong = Capacity { kv_tokens: 0, ..capacity };
    refused(share(wrong), Field::KvTokens, Problem::Below(1));
    let wrong = Capacity { output_token: Span::ZERO, ..capacity };
    refused(share(wrong), Field::OutputToken, Problem::Below(1));
    for accounts_max in [0, u32::MAX] {
        let policy = Config { accounts_max, ..config(Share::Fcfs, vec![class()]) };
        assert!(Allocator::new(policy).is_err());
    }
}
