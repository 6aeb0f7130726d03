//! The live page, and the events that it lives on.

use std::sync::{Arc, LazyLock};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::time::{MissedTickBehavior, interval};

use super::look::{self, Look};
use super::{Desk, TELL_EVERY};
use crate::answer::{Body, Problem, whole};

const PAGE: &str = include_str!("page.html");

/// Allows the page its own style and script, and to talk to where it came from; nothing else.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |tag| base64(&Sha256::digest(between(PAGE, tag)));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script"),
    );
    HeaderValue::try_from(policy).expect("it is ASCII")
});

/// The page.
pub(crate) fn page() -> Response<Body> {
    let mut response = whole(StatusCode::OK, "text/html; charset=utf-8", PAGE.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What stands in the only element of this name.
fn between<'a>(page: &'a str, tag: &str) -> &'a str {
    let inner = page.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
    inner.split_once(&format!("</{tag}>")).map_or("", |(inner, _)| inner)
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Tells whoever watches how it stands, twice a second; looks only if somebody does.
pub(crate) async fn tell(desk: Arc<Desk>) {
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if desk.events.receiver_count() == 0 {
            continue;
        }
        let Ok(look) = Look::at(&desk.shared).await else { return };
        let current = desk.shared.current();
        let parts = desk.parts(look.now, look.snapshot.classes.len());
        let state = look::state(&look, (&desk.shared, &current), &parts);
        desk.events.send_replace(format!("data: {state}\n\n").into());
    }
}

/// Events until whoever watches leaves.
///
/// # Errors
/// If as many watch as may.
pub(crate) fn events(desk: &Desk) -> Result<Response<Body>, Problem> {
    let Ok(permit) = Arc::clone(&desk.listeners).try_acquire_owned() else {
        let message = "as many watch as may";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_listeners", message));
    };
    let told = desk.events.subscribe();
    let events = futures_util::stream::unfold((told, permit), |(mut told, permit)| async move {
        told.changed().await.ok()?;
        let event = told.borrow_and_update().clone();
        Some((Ok(Frame::data(event)), (told, permit)))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (raw, wanted) in cases {
            assert_eq!(base64(raw.as_bytes()), wanted);
        }
    }

    #[test]
    fn the_page_is_one_file_with_one_style_and_one_script() {
        for tag in ["<style>", "<script>"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        for outside in ["http://", "https://", "src=", "<link", " style=\"", "onclick", "innerHTML"]
        {
            assert!(!PAGE.replace("http://www.w3.org/2000/svg", "").contains(outside), "{outside}");
        }
        assert!(between(PAGE, "script").len() > 100);
    }
}
