//! In steady state a decision allocates no memory, whatever the rules.

#[path = "support/traffic.rs"]
mod traffic;

use traffic::{PERIOD, Traffic, all_rules, main_rules, other_rules};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

/// Blocks allocated so far.
fn blocks() -> u64 {
    dhat::HeapStats::get().total_blocks
}

// One test: the count is of the whole process.
#[test]
fn decisions_in_steady_state_allocate_nothing() {
    let _profiler = dhat::Profiler::builder().testing().build();
    for (name, policy) in main_rules().into_iter().chain(other_rules()).chain([all_rules()]) {
        let mut traffic = Traffic::start(policy, 0);
        // Queues grow to the same lengths again and again, and drain.
        let mut wave = || {
            (0..PERIOD).for_each(|_| traffic.arrive());
            assert!(traffic.waiting() > 8_000, "{name} queues");
            (0..PERIOD).for_each(|_| traffic.end());
            assert_eq!(traffic.waiting(), 0, "{name} drains");
            for _ in 0..PERIOD {
                traffic.arrive();
                traffic.end();
            }
        };
        (0..2).for_each(|_| wave());
        let before = blocks();
        (0..2).for_each(|_| wave());
        assert_eq!(blocks() - before, 0, "{name}");
    }
    let before = blocks();
    drop(std::hint::black_box(vec![1]));
    assert_eq!(blocks() - before, 1, "the count counts");
}
