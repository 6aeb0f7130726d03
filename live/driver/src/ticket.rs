//! A request's stay: pending, then under way. Both have the last word whatever becomes of them.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use plimsoll_base::{BackendId, Bound, ClassId, End, Reason, Refusal, RequestId, Span};
use plimsoll_policy::Used;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::oneshot;

use crate::driver::Message;

/// What a request that waits is told.
pub(crate) type Answer = Result<Let, Refused>;

/// It may go.
#[derive(Debug)]
pub(crate) struct Let {
    pub class: ClassId,
    pub backend: BackendId,
    pub priority: i32,
    pub reason: Reason,
    pub bound: Option<Bound>,
    pub waited: Span,
    pub revocation: Revocation,
}

/// Whether the allocator has taken a ticket back. One task at a time may wait for it.
#[derive(Clone, Debug, Default)]
pub struct Revocation(Arc<Revoked>);

#[derive(Debug, Default)]
struct Revoked {
    is: AtomicBool,
    waker: AtomicWaker,
}

impl Revocation {
    pub(crate) fn revoke(&self) {
        self.0.is.store(true, Ordering::Release);
        self.0.waker.wake();
    }
    /// Whether it was taken back by now.
    pub fn is_revoked(&self) -> bool {
        self.0.is.load(Ordering::Acquire)
    }
    /// Ready once it is taken back.
    pub fn poll_revoked(&self, context: &mut Context<'_>) -> Poll<()> {
        // Registered first: whoever revokes it in between wakes.
        self.0.waker.register(context.waker());
        if self.is_revoked() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Why a request does not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The class it was given; `None` if no rule matched.
    pub class: Option<ClassId>,
    /// The refusal; `None` if it waited longer than its class's time-to-live.
    pub refusal: Option<Refusal>,
    /// The rule that decided; `None` where the allocator was not asked, because more requests are
    /// held than fit the channel to it, or it has stopped.
    pub reason: Option<Reason>,
    /// When its client may come back; zero: never with the same request.
    pub retry_after: Span,
    /// What it had waited for, if it waited.
    pub bound: Option<Bound>,
}

impl Refused {
    /// Declined without being asked about.
    pub(crate) fn at_the_door(refusal: Refusal) -> Refused {
        let retry_after = Span::from_secs(1);
        Refused { class: None, refusal: Some(refusal), reason: None, retry_after, bound: None }
    }
}

/// Room for one last word, and who says it.
#[derive(Debug)]
struct LastWord {
    id: RequestId,
    room: Option<OwnedPermit<Message>>,
}

impl LastWord {
    fn say(&mut self, message: Message) {
        if let Some(room) = self.room.take() {
            room.send(message);
        }
    }
}

/// A request that waits for its turn. Dropping it withdraws it.
#[derive(Debug)]
pub struct Pending {
    last: LastWord,
    answer: oneshot::Receiver<Answer>,
}

impl Pending {
    pub(crate) fn new(
        id: RequestId,
        room: OwnedPermit<Message>,
        answer: oneshot::Receiver<Answer>,
    ) -> Pending {
        Pending { last: LastWord { id, room: Some(room) }, answer }
    }

    /// Its number in the decision log.
    pub fn id(&self) -> RequestId {
        self.last.id
    }

    /// Waits until the allocator has decided. May be dropped at any time.
    ///
    /// # Errors
    /// If it was refused, or waited too long.
    pub async fn admitted(mut self) -> Result<Ticket, Refused> {
        let answer = (&mut self.answer).await;
        let id = self.last.id;
        let room = self.last.room.take();
        match answer {
            Ok(Ok(going)) => {
                Ok(Ticket { last: LastWord { id, room }, going, used: Used::default() })
            }
            Ok(Err(refused)) => Err(refused),
            // The task is gone, and with it everything that was held.
            Err(_) => Err(Refused::at_the_door(Refusal::Draining)),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let id = self.last.id;
        self.last.say(Message::Gone(id));
    }
}

/// A request under way to a backend, or running there. Dropping it ends it as cancelled with what
/// it had used by then.
#[derive(Debug)]
pub struct Ticket {
    last: LastWord,
    going: Let,
    used: Used,
}

impl Ticket {
    /// Its number in the decision log.
    pub fn id(&self) -> RequestId {
        self.last.id
    }
    /// The class it was given.
    pub fn class(&self) -> ClassId {
        self.going.class
    }
    /// Where it is to go.
    pub fn backend(&self) -> BackendId {
        self.going.backend
    }
    /// Its priority there: higher is more important.
    pub fn priority(&self) -> i32 {
        self.going.priority
    }
    /// The rule that picked it, and what it had waited for.
    pub fn reason(&self) -> (Reason, Option<Bound>) {
        (self.going.reason, self.going.bound)
    }
    /// How long it waited.
    pub fn waited(&self) -> Span {
        self.going.waited
    }
    /// What it has used so far; told when it ends, however that comes about.
    pub fn used(&mut self) -> &mut Used {
        &mut self.used
    }
    /// Comes back when the allocator takes it back to make room: it is to be cancelled at its
    /// backend and ended as [`End::Evicted`]. Never comes back otherwise.
    pub async fn revoked(&self) {
        poll_fn(|context| self.going.revocation.poll_revoked(context)).await;
    }
    /// The same for whoever does not hold the ticket.
    pub fn revocation(&self) -> &Revocation {
        &self.going.revocation
    }
    /// It ended at its backend. Everything it held is free again.
    pub fn end(mut self, end: End) {
        self.close(end);
    }

    fn close(&mut self, end: End) {
        let (id, used) = (self.last.id, self.used);
        self.last.say(Message::Ended(id, end, used));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.close(End::Cancelled);
    }
}
