//! The inputs of a storm, made without asking the allocator who is there.

use plimsoll_base::{BackendId, RequestId, Time};
use plimsoll_policy::log::{Header, Writer};
use plimsoll_policy::{Allocator, Config, Input};

use crate::storm::Act;

/// Each input and its instant.
pub fn inputs(acts: Vec<Act>) -> Vec<(Time, Input)> {
    let (mut now, mut offered) = (0u64, 0);
    let input = |act| {
        let nth = |n: usize| RequestId(n as u64 % (offered + 1));
        let input = match act {
            Act::Arrive(info) => {
                offered += 1;
                Input::Arrived(RequestId(offered - 1), info)
            }
            Act::ArriveAgain(n, info) => Input::Arrived(nth(n), info),
            Act::Predict(_, tokens) => Input::Predicted(RequestId(offered), tokens),
            Act::Begin(n) => Input::FirstToken(nth(n)),
            Act::End(n, end, used) => Input::Ended(nth(n), end, used),
            Act::Report(slot, generation, load, age) => {
                let as_of = Time::from_nanos(now.saturating_sub(age));
                Input::Reported(BackendId { slot, generation }, load, as_of)
            }
            Act::Withdraw(n) => Input::Withdrawn(nth(n)),
            Act::Join(slot, generation, info) => {
                Input::Joined(BackendId { slot, generation }, info)
            }
            Act::Leave(slot, generation) => Input::Left(BackendId { slot, generation }),
            Act::Drain => Input::Draining,
            Act::Match(back, backend, tokens) => {
                Input::Matched(RequestId(offered.saturating_sub(back)), backend, tokens)
            }
            Act::Wait(nanos, _) => {
                now += nanos;
                Input::Deadline
            }
        };
        (Time::from_nanos(now), input)
    };
    acts.into_iter().map(input).collect()
}

/// A log that begins with this header: what an allocator with its policy decides on these inputs.
/// The allocator is handed back as they left it.
pub fn logged(header: &Header, inputs: &[(Time, Input)]) -> (Vec<u8>, Allocator) {
    let config: Config = header.policy.clone();
    let mut allocator = Allocator::new(config).expect("the storm's policies are valid");
    let mut writer = Writer::new(header);
    for (now, input) in inputs {
        writer.input(*now, input);
        allocator.handle(*now, input.clone());
        while let Some(decision) = allocator.poll() {
            writer.decision(&decision);
        }
        while let Some(signal) = allocator.poll_signal() {
            writer.signal(&signal);
        }
    }
    (writer.finish(), allocator)
}
