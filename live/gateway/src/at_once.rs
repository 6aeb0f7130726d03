//! A task that wakes itself goes on at once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// How often one goes on before others have their turn.
const ROUNDS: u32 = 4;

/// Polls a future again at once if it was woken while it was polled. Those who read a connection and
/// those who answer it tell each other of every piece, and are one task: the runtime would put it
/// behind everybody who is to run, and a request would wait for a burst of others' tokens between
/// its head and its body.
///
/// One that can wait has everybody go first who is to run when it is woken. Engines send the tokens
/// of a step in a burst: requests and first tokens in it do not wait for those that go on.
pub(crate) async fn at_once<F: Future>(can_wait: impl Fn() -> bool, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut has_waited = false;
    let bell = Arc::<Bell>::default();
    let waker = Waker::from(Arc::clone(&bell));
    poll_fn(|context| {
        has_waited = !has_waited && can_wait();
        if has_waited {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        bell.task.register(context.waker());
        for _ in 0..ROUNDS {
            bell.state.store(POLLED, Ordering::SeqCst);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(output);
            }
            if bell.state.swap(IDLE, Ordering::SeqCst) == POLLED {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Nobody polls: whoever rings wakes the task.
const IDLE: u8 = 0;
/// It is polled, and nobody has rung since that began.
const POLLED: u8 = 1;
/// It is polled, and somebody has rung.
const RUNG: u8 = 2;

#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        let order = Ordering::SeqCst;
        if self.state.compare_exchange(POLLED, RUNG, order, order) == Err(IDLE) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Polls until it has woken itself so often.
    async fn restless(times: u32, polls: &Mutex<Vec<&str>>, name: &'static str) {
        let mut left = times;
        poll_fn(|context| {
            polls.lock().expect("nobody panics").push(name);
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[tokio::test]
    async fn lets_others_go_first_if_it_can_wait() {
        let order = Arc::<Mutex<Vec<&str>>>::default();
        let (first, second) = (Arc::clone(&order), Arc::clone(&order));
        let first =
            tokio::spawn(async move { at_once(|| true, restless(1, &first, "first")).await });
        let second =
            tokio::spawn(async move { at_once(|| false, restless(1, &second, "second")).await });
        first.await.expect("it ends");
        second.await.expect("it ends");
        let order = order.lock().expect("nobody panics").join(" ");
        assert_eq!(order, "second second first first");
    }

    #[tokio::test]
    async fn goes_on_before_others_and_not_for_ever() {
        let order = Arc::<Mutex<Vec<&str>>>::default();
        let (first, second) = (Arc::clone(&order), Arc::clone(&order));
        let first =
            tokio::spawn(async move { at_once(|| false, restless(5, &first, "first")).await });
        let second = tokio::spawn(async move { restless(1, &second, "second").await });
        first.await.expect("it ends");
        second.await.expect("it ends");
        let order = order.lock().expect("nobody panics").join(" ");
        assert_eq!(order, "first first first first second first first second");
    }

    #[tokio::test]
    async fn is_woken_by_others() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(at_once(|| false, told));
        tokio::task::yield_now().await;
        tell.send(7).expect("it waits");
        assert_eq!(waiting.await.expect("it ends"), Ok(7));
    }

    /// Wakes from other threads are not lost, whenever they come.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn hears_other_threads() {
        for _ in 0..2_000 {
            let (tell, mut told) = tokio::sync::mpsc::channel(1);
            let waiting = tokio::spawn(at_once(|| true, async move {
                let mut sum = 0;
                while let Some(number) = told.recv().await {
                    sum += number;
                }
                sum
            }));
            std::thread::spawn(move || {
                (1..=3).for_each(|number| tell.blocking_send(number).unwrap())
            });
            assert_eq!(waiting.await.expect("it ends"), 6);
        }
    }
}
