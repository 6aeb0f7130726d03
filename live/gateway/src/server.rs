//! The way in: connections, limits, routes.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use plimsoll_base::{Observer, Span};
use plimsoll_config::gateway::{GatewayFile, Limits, Scheme};
use plimsoll_driver::{Gate, LogSettings, Policy, Settings};
use plimsoll_policy::log::Header;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::admin::{self, Desk, Meter, Operations, Summary};
use crate::answer::{Body, Problem, json};
use crate::at_once::at_once;
use crate::body::{Asked, Route};
use crate::identity::Caller;
use crate::infer::{Job, duration};
use crate::keys::Keys;
use crate::lease;
use crate::line::{Line, Peer, hang_up};
use crate::places::{Place, Places};
use crate::state::{Closing, Current, KIB, Shared, count};
use crate::tls::Acceptor;

/// A gateway that is about to start.
pub struct Gateway {
    /// What it does.
    pub file: GatewayFile,
    /// Who may come in.
    pub keys: Keys,
    /// Who is told what happens, beside the gateway's own metrics.
    pub observer: Box<dyn Observer + Send>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// It asks for something that this build does not have, or whose files are not there.
    #[error("{0}")]
    Unsupported(String),
    /// The allocator did not start.
    #[error(transparent)]
    Driver(#[from] plimsoll_driver::StartError),
}

/// A gateway at work.
pub struct Running {
    pub(crate) shared: Arc<Shared>,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    driver: JoinHandle<()>,
    /// With an operations side: where it is, and what it knows.
    admin: Option<(SocketAddr, Arc<Desk>)>,
}

impl Gateway {
    /// Starts it on the current runtime, without an operations side.
    ///
    /// # Errors
    /// If an address is taken, the policy contradicts itself, the log's folder cannot be written
    /// to, or the file asks for TLS and this build has none.
    pub async fn start(self) -> Result<Running, StartError> {
        self.open(None).await
    }

    /// Starts it with metrics and administration at the address that the file gives.
    ///
    /// # Errors
    /// As [`start`](Gateway::start).
    pub async fn operate(self, operations: Operations) -> Result<Running, StartError> {
        self.open(Some(operations)).await
    }

    async fn open(self, operations: Option<Operations>) -> Result<Running, StartError> {
        let Gateway { file, keys, observer } = self;
        let tls = supported(&file).map_err(StartError::Unsupported)?;
        let listener = listen(file.listen).await?;
        let address = listener.local_addr().unwrap_or(file.listen);
        let admin = match &operations {
            Some(_) => Some(listen(file.admin).await?),
            None => None,
        };
        let policy = policy(&file);
        let log = file.log.as_ref().map(|log| LogSettings {
            folder: log.folder.clone(),
            file_bytes_max: log.file_bytes_max,
            files_max: log.files_max as usize,
        });
        let places = Places::new(&file, &keys);
        let meter = Meter::new(&file, &places);
        let observer = Box::new((operations.is_some().then(|| meter.clone()), observer));
        let (gate, driver) = plimsoll_driver::start(Settings { policy, log, observer })?;
        let shared = Arc::new(Shared::new(gate, Current::new(file, keys, places)));
        watch(&shared).await;
        let mut tasks = vec![tokio::spawn(accept((listener, tls), Arc::clone(&shared)))];
        let admin = admin.zip(operations).map(|(listener, operations)| {
            let address = listener.local_addr().unwrap_or(shared.current().file.admin);
            let desk = Desk::new(Arc::clone(&shared), meter, operations);
            let (desk, more) = admin::start(listener, desk);
            tasks.extend(more);
            (address, desk)
        });
        Ok(Running { shared, address, tasks, driver, admin })
    }
}

impl Running {
    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The way to the allocator.
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// Where metrics and administration are, if there is an operations side.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(address, _)| *address)
    }

    /// Reads the gateway file again and puts it in force: all of it, or nothing.
    ///
    /// # Errors
    /// In words, and then nothing has changed.
    pub async fn reload(&self) -> Result<Summary, String> {
        let (_, desk) = self.admin.as_ref().ok_or("this gateway has no file to read again")?;
        desk.reload().await
    }

    /// Comes back once somebody has asked the operations side to drain.
    pub async fn drain_asked(&self) {
        self.shared.drain_asked.notified().await;
    }

    /// Takes nothing new in and lets what is held go on to its end, for so long at most; then
    /// stops. Whether everything had ended.
    pub async fn drain(self, grace: Duration) -> bool {
        self.shared.drain().await;
        let empty = async {
            while !is_empty(&self.shared).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let until = Instant::now() + grace;
        let all_ended = tokio::time::timeout_at(until, empty).await.is_ok();
        if all_ended {
            // What ended last may be on its way to its client still.
            self.shared.closing.send_replace(Closing::WhenAnswered);
            let until = until.max(Instant::now() + Duration::from_secs(1));
            let all = self.shared.current().file.limits.connections_max;
            let _ = tokio::time::timeout_at(until, self.shared.room.acquire_many(all)).await;
        }
        self.stop().await;
        all_ended
    }

    /// Stops at once.
    pub async fn stop(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.watchers.stop_all();
        self.shared.closing.send_replace(Closing::Now);
        self.shared.gate.stop().await;
        // A task that panicked has said so.
        let _ = self.driver.await;
    }
}

async fn is_empty(shared: &Shared) -> bool {
    let held = shared.gate.ask(|inside| {
        let waiting = (0..inside.config.classes.len() as u16)
            .any(|class| inside.allocator.queued(plimsoll_base::ClassId(class)) > 0);
        waiting || inside.allocator.in_flight() > 0
    });
    !held.await.unwrap_or(false)
}

/// The policy of a file, and what a log says of it.
pub(crate) fn policy(file: &GatewayFile) -> Policy {
    let header = Header {
        build: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: file.name.clone(),
        names: file.names.clone(),
        objectives: file.objectives.clone(),
        ..Header::default()
    };
    Policy { config: file.config.clone(), header }
}

/// Whether this build and this machine can do what a file asks for; how it speaks with clients.
pub(crate) fn supported(file: &GatewayFile) -> Result<Option<Acceptor>, String> {
    if file.backends.iter().any(|backend| backend.url.scheme == Scheme::Https) {
        crate::upstream::connector()?;
    }
    file.tls.as_ref().map(Acceptor::new).transpose()
}

/// Has resources join, and somebody look after each backend.
async fn watch(shared: &Shared) {
    let current = shared.current();
    let every = reports_every(shared).await;
    for (slot, place) in current.places.iter() {
        match place {
            Place::Backend(upstream) => {
                shared.watchers.start((shared.gate.clone(), slot), upstream, (false, every));
            }
            Place::Resource(index) => {
                shared.gate.join(slot, current.file.resources[*index].info).await;
            }
            Place::Removed(_) => {}
        }
    }
}

/// How often the policy in force wants reports, if it does.
pub(crate) async fn reports_every(shared: &Shared) -> Option<Duration> {
    let needs = shared.gate.ask(|inside| inside.allocator.needs()).await;
    needs.ok().and_then(|needs| needs.reports).map(duration)
}

pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, error })
}

async fn accept((listener, tls): (TcpListener, Option<Acceptor>), shared: Arc<Shared>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, mostly: wait until some are closed.
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        count(&shared.counts.connections);
        let Ok(permit) = Arc::clone(&shared.room).try_acquire_owned() else {
            count(&shared.counts.connections_refused);
            continue;
        };
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        tokio::spawn(async move {
            // Without it events would wait for each other.
            let _ = stream.set_nodelay(true);
            let limits = shared.current().file.limits.clone();
            let line = Line::new(stream, duration(limits.write_timeout));
            let peer = line.peer();
            match tls {
                None => serve(line, (&peer, &limits), shared).await,
                Some(tls) => {
                    let patience = duration(limits.header_timeout);
                    // Whoever cannot agree on keys is gone.
                    if let Ok(Ok(stream)) = timeout(patience, tls.accept(line)).await {
                        serve(stream, (&peer, &limits), shared).await;
                    }
                }
            }
            hang_up(peer).await;
            drop(permit);
        });
    }
}

async fn serve<S>(stream: S, (peer, limits): (&Peer, &Limits), shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut closing = shared.closing.subscribe();
    let service = service_fn(|request| {
        let (shared, peer) = (Arc::clone(&shared), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, (shared, peer)).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(duration(limits.header_timeout))
        .max_buf_size((limits.header_bytes_max as usize).max(8192))
        .half_close(false);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let exchange = async {
        let when_answered = closing.wait_for(|closing| *closing != Closing::No);
        // A connection that breaks off has freed what it held.
        let is_over = tokio::select! {
            _ = connection.as_mut() => true,
            _ = when_answered => false,
        };
        if !is_over {
            connection.as_mut().graceful_shutdown();
            let now = closing.wait_for(|closing| *closing == Closing::Now);
            tokio::select! {
                _ = connection => {}
                _ = now => {}
            }
        }
    };
    at_once(|| peer.is_streaming(), exchange).await;
}

/// Answers one request, whatever it is.
async fn answer(request: Request<Incoming>, (shared, peer): (Arc<Shared>, Peer)) -> Response<Body> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static PROCESS: LazyLock<u32> = LazyLock::new(std::process::id);
    let own = || format!("plimsoll-{}-{}", *PROCESS, NEXT.fetch_add(1, Ordering::Relaxed));
    let id = id_of(request.headers()).map_or_else(own, str::to_owned);
    // Of a length beside it nothing is left to be seen here: whoever stands before us and heeds that
    // one finds another request where this one ends.
    let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let answered = route(request, (&shared, &peer), &id).await;
    let mut response = answered.unwrap_or_else(|problem| problem.response());
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert("x-request-id", value);
    }
    if is_chunked {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let digit = usize::from(response.status().as_u16() / 100).min(5);
    count(&shared.counts.answered[digit]);
    response
}

/// The client's own number for a request, if it makes sense.
fn id_of(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let is_sound = (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_sound.then_some(id)
}

async fn route(
    request: Request<Incoming>,
    (shared, peer): (&Arc<Shared>, &Peer),
    id: &str,
) -> Result<Response<Body>, Problem> {
    has_one_meaning(&request)?;
    let current = shared.current();
    let path = request.uri().path();
    if let Some(route) = Route::ALL.into_iter().find(|route| route.path() == path) {
        allow(&request, &Method::POST)?;
        let job = read(request, route, (shared, &current), id).await;
        let job = job.inspect_err(|_| count(&shared.counts.turned_away))?;
        return tokio::select! {
            answered = job.run(peer) => answered,
            () = peer.gone() => Err(client_gone()),
        };
    }
    if let Some(rest) = path.strip_prefix(lease::PATH) {
        let rest = rest.to_owned();
        return tokio::select! {
            answered = leases(request, &rest, (shared, &current)) => answered,
            () = peer.gone() => Err(client_gone()),
        };
    }
    match path {
        "/v1/models" => {
            allow(&request, &Method::GET)?;
            Caller::of(request.headers(), shared, &current)?;
            Ok(models(&current.file))
        }
        "/healthz" => Ok(json(StatusCode::OK, &json!({ "status": "ok" }))),
        "/readyz" => Ok(ready(shared).await),
        _ => {
            let message = format!("there is nothing at `{path}`");
            Err(Problem::new(StatusCode::NOT_FOUND, "not_found", message))
        }
    }
}

/// Whether everybody on the way reads the same request.
///
/// # Errors
/// If it states its length, its encoding or its host more than once or in another way than clients
/// of this API do.
fn has_one_meaning<B>(request: &Request<B>) -> Result<(), Problem> {
    let headers = request.headers();
    let count = |name| headers.get_all(name).iter().count();
    let is_old = request.version() == Version::HTTP_10;
    let encoding = headers.get(TRANSFER_ENCODING);
    let is_plain = count(CONTENT_LENGTH) <= 1
        && count(TRANSFER_ENCODING) <= 1
        && encoding.is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && (count(HOST) == 1 || is_old && count(HOST) == 0);
    let message = "`Host`, `Content-Length` and `Transfer-Encoding: chunked` may be stated once";
    is_plain.then_some(()).ok_or_else(|| Problem::bad("ambiguous_request", message))
}

/// The answer that nobody reads.
fn client_gone() -> Problem {
    let status = StatusCode::from_u16(499).expect("a status that nginx has made known");
    Problem::new(status, "client_closed_request", "the client has left")
}

/// Leases are taken, renewed and given back.
async fn leases(
    request: Request<Incoming>,
    rest: &str,
    (shared, current): (&Arc<Shared>, &Arc<Current>),
) -> Result<Response<Body>, Problem> {
    let (head, body) = request.into_parts();
    let caller = Caller::of(&head.headers, shared, current)?;
    let (body, _) = read_body(&head.headers, body, (shared, &current.file)).await?;
    match (head.method, rest.strip_prefix('/')) {
        (Method::POST, None) if rest.is_empty() => {
            lease::take((shared, current), &caller, &head.headers, &body).await
        }
        (Method::PUT, Some(id)) => lease::renew(shared, &caller, (id, &body)),
        (Method::DELETE, Some(id)) => lease::give_back(shared, &caller, id),
        _ => {
            let message = "POST /v1/leases takes a lease, PUT and DELETE /v1/leases/ID renew it \
                           and give it back";
            Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message))
        }
    }
}

pub(crate) fn allow<B>(request: &Request<B>, method: &Method) -> Result<(), Problem> {
    if request.method() == method {
        return Ok(());
    }
    let message = format!("use {method} here");
    Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message))
}

/// A request for inference, once its key, its headers and its body make sense.
async fn read(
    request: Request<Incoming>,
    route: Route,
    (shared, current): (&Arc<Shared>, &Arc<Current>),
    id: &str,
) -> Result<Job, Problem> {
    let (head, body) = request.into_parts();
    let caller = Caller::of(&head.headers, shared, current)?;
    let (body, room) = read_body(&head.headers, body, (shared, &current.file)).await?;
    let asked = Asked::read(route, &body)?;
    Job::read((shared, current), &caller, &head.headers, (asked, id.to_owned(), room))
}

/// A body within its limits, and the room that it takes as long as it is held.
///
/// # Errors
/// If it is too large, too slow, or breaks off; or if there is no room for what it may become.
async fn read_body(
    headers: &HeaderMap,
    body: Incoming,
    (shared, file): (&Shared, &GatewayFile),
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let bytes_max = file.limits.body_bytes_max;
    let too_large = || {
        let message = format!("the body is larger than {bytes_max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if stated.is_some_and(|stated: u64| stated > bytes_max) {
        return Err(too_large());
    }
    let kib = |bytes: u64| bytes.div_ceil(KIB) as u32;
    let room = Arc::clone(&shared.bodies);
    let Ok(mut room) = room.try_acquire_many_owned(kib(stated.unwrap_or(bytes_max))) else {
        let message = "the gateway holds as many bytes of requests as it may";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut problem = Problem::new(status, "bodies_full", message);
        problem.retry_after = Some(Span::from_secs(1));
        return Err(problem);
    };
    let body = Limited::new(body, bytes_max as usize).collect();
    match timeout(duration(file.limits.body_timeout), body).await {
        Ok(Ok(body)) => {
            let body = body.to_bytes();
            let taken = kib(body.len() as u64) as usize;
            // What is not said before may be less than feared.
            drop(room.split(room.num_permits().saturating_sub(taken)));
            Ok((body, room))
        }
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::bad("body_cut", "the body broke off")),
        Err(_) => {
            let message = "the body took too long";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message))
        }
    }
}

fn models(file: &GatewayFile) -> Response<Body> {
    let models = &file.config.models[..file.config.models.len() - file.resources.len()];
    let one = |id: &String| json!({ "id": id, "object": "model", "owned_by": "plimsoll" });
    let list: Vec<_> = models.iter().map(one).collect();
    json(StatusCode::OK, &json!({ "object": "list", "data": list }))
}

/// Whether a request could be answered now.
async fn ready(shared: &Shared) -> Response<Body> {
    let here = shared
        .gate
        .ask(|inside| inside.backends.iter().flatten().filter(|backend| backend.is_here).count());
    let here = here.await.unwrap_or(0);
    let is_ready = here > 0 && !shared.is_draining();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &json!({ "ready": is_ready, "backends": here, "draining": shared.is_draining() }))
}
