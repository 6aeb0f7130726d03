//! Shadows agree with themselves, differ where the policies differ, and hold nothing for ever.

use plimsoll_base::{BackendId, ClassId, End, RequestId, Span, Time};
use plimsoll_policy::config::{Class, Config, Place, Share};
use plimsoll_policy::{
    Agreement, Allocator, BackendInfo, Decision, Input, RequestInfo, Shadows, Used,
};

fn policy(place: Place, queue_max: Option<u32>) -> Config {
    let time_to_live = Some(Span::from_nanos(9));
    let class = Class { queue_max, time_to_live, ..Class::default() };
    Config { place: vec![place], ..Config::plain(Share::Fcfs, vec![class]) }
}

/// So many requests at two unequal backends, each as long as it is large.
fn agreements(acting: Config, shadows: Vec<Config>, requests: u64) -> Vec<Agreement> {
    let mut allocator = Allocator::new(acting).expect("it is valid");
    let mut shadows = Shadows::new(shadows).expect("they are valid");
    let mut told = |now: u64, input: Input| -> Vec<Decision> {
        let now = Time::from_nanos(now);
        allocator.handle(now, input.clone());
        let decisions: Vec<Decision> = std::iter::from_fn(|| allocator.poll()).collect();
        shadows.listen(now, &input, &decisions);
        decisions
    };
    for (slot, seats) in [(0, 2), (1, 3)] {
        let info = BackendInfo { seats, kv_tokens: 999, context_max: 999, ..Default::default() };
        told(0, Input::Joined(BackendId::first(slot), info));
    }
    for number in 0..requests {
        if number % 50 == 40 {
            told(number, Input::Deadline);
        }
        let request = RequestInfo {
            claims: Some(ClassId(0)),
            prompt_tokens: (number * 37 % 101) as u32,
            ..RequestInfo::default()
        };
        told(number, Input::Arrived(RequestId(number), request));
        if number % 7 > 0 && number >= 5 {
            let used = Used { prompt_tokens: 1, output_tokens: 0 };
            told(number, Input::Ended(RequestId(number - 5), End::Finished, used));
        }
    }
    shadows.agreements().collect()
}

#[test]
fn a_shadow_of_the_same_policy_agrees_always() {
    let same = || policy(Place::LeastTokens, Some(2));
    let found = agreements(same(), vec![same(), same()], 500);
    assert_eq!(found[0], found[1]);
    assert!(found[0].decided > 300 && found[0].same == found[0].decided, "{found:?}");
    assert_eq!(found[0].rate(), Some(1.0));
}

#[test]
fn other_policies_agree_now_and_then() {
    let found = agreements(
        policy(Place::LeastTokens, Some(2)),
        vec![policy(Place::RoundRobin, Some(2)), policy(Place::LeastTokens, Some(0))],
        500,
    );
    for agreement in found {
        let rate = agreement.rate().expect("something was decided");
        assert!(0.01 < rate && rate < 0.99, "{agreement:?}");
    }
    assert_eq!(Agreement::default().rate(), None);
}
