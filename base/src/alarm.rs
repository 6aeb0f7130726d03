//! Alarms: what a detector says while it happens.

use crate::{Bound, ClassId, Time};

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// None of the class was let in for too long while others were.
    NoService,
    /// The class got too much less than its share.
    Lag,
    /// Whoever joins the queue now will miss the class's deadline.
    Deadline,
    /// Requests of the class are preempted again and again, and none finishes.
    Livelock,
    /// Seats are free, somebody waits for them, and nobody is let in.
    Idle,
    /// Less important work held what the class waited for, for too long.
    Inversion,
}

impl AlarmKind {
    /// All of them.
    pub const ALL: [AlarmKind; 6] = [
        AlarmKind::NoService,
        AlarmKind::Lag,
        AlarmKind::Deadline,
        AlarmKind::Livelock,
        AlarmKind::Idle,
        AlarmKind::Inversion,
    ];
    /// The name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            AlarmKind::NoService => "no_service",
            AlarmKind::Lag => "lag",
            AlarmKind::Deadline => "deadline",
            AlarmKind::Livelock => "livelock",
            AlarmKind::Idle => "idle",
            AlarmKind::Inversion => "inversion",
        }
    }
}

/// An alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What went wrong.
    pub kind: AlarmKind,
    /// Whom it hurts.
    pub victim: ClassId,
    /// The class that holds most above its share; the victim itself where its own limit stops it;
    /// `None` where nobody is to blame.
    pub culprit: Option<ClassId>,
    /// What the victim waits for.
    pub resource: Option<Bound>,
    /// Since when.
    pub since: Time,
}
