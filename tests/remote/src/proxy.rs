//! A proxy on loopback that spoils some of what it passes on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::IF_NONE_MATCH;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::Sleep;

use crate::faults::{Asked, Decide, Fault, PAUSE, none};
use crate::server::{bind, runtime};

/// Bytes of one piece of a slow body.
const PIECE_BYTES: usize = 64 * 1024;

/// A body that may break off.
type Passed = BoxBody<Bytes, io::Error>;

/// A proxy in front of one server.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    server: SocketAddr,
    decide: Mutex<Decide>,
    met: Mutex<BTreeMap<Fault, u64>>,
}

impl Proxy {
    /// Starts one on a free port, before the server at that address. At first nothing goes wrong.
    pub fn start(server: SocketAddr) -> Self {
        let runtime = runtime("proxy");
        let listener = bind(&runtime, (Ipv4Addr::LOCALHOST, 0).into());
        let address = listener.local_addr().unwrap();
        let shared = Shared { server, decide: Mutex::new(none()), met: Mutex::default() };
        let shared = Arc::new(shared);
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _runtime: runtime }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Decides in another way from the next request on.
    pub fn decide_by(&self, decide: Decide) {
        *self.shared.decide.lock().unwrap_or_else(PoisonError::into_inner) = decide;
    }

    /// How often each fault was met.
    pub fn met(&self) -> BTreeMap<Fault, u64> {
        self.shared.met.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn fault(&self, request: &Request<Incoming>) -> Option<Fault> {
        let asked = Asked {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            is_conditional: request.headers().contains_key(IF_NONE_MATCH),
        };
        let mut decide = self.decide.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = (*decide)(&asked)?;
        drop(decide);
        *self.met.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
        Some(fault)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, Arc::clone(&shared)));
            // An error is a cut, or the client that went away.
            let _ = server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

/// An error cuts the connection to the client.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> io::Result<Response<Passed>> {
    let fault = shared.fault(&request);
    let (head, body) = request.into_parts();
    let spoil = match fault {
        Some(Fault::CutInRequest) => Spoil::CutAfter(body.size_hint().lower() / 2),
        Some(Fault::Slow) => Spoil::Slow,
        _ => Spoil::Nothing,
    };
    match fault {
        Some(Fault::SlowDown) => {
            return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"));
        }
        Some(Fault::Refused) => {
            return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
        }
        Some(Fault::CutBefore) => return Err(cut()),
        _ => {}
    }
    let answer = ask(shared.server, Request::from_parts(head, Spoiled::new(body, spoil))).await?;
    let (head, body) = answer.into_parts();
    match fault {
        Some(Fault::CutInRequest | Fault::CutBeforeAnswer) => Err(cut()),
        Some(Fault::CutInAnswer) if body.is_end_stream() => Err(cut()),
        Some(Fault::DoneButRefused) => {
            Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
        }
        _ => {
            let spoil = match fault {
                Some(Fault::CutInAnswer) => Spoil::CutAfter(body.size_hint().lower() / 2),
                Some(Fault::Slow) => Spoil::Slow,
                _ => Spoil::Nothing,
            };
            Ok(Response::from_parts(head, Spoiled::new(body, spoil).boxed()))
        }
    }
}

/// Asks the server on a connection of its own.
async fn ask(server: SocketAddr, request: Request<Spoiled>) -> io::Result<Response<Incoming>> {
    let stream = TcpStream::connect(server).await?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender.send_request(request).await.map_err(io::Error::other)
}

fn refusal(status: StatusCode, code: &str) -> Response<Passed> {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    let never = |infallible: Infallible| match infallible {};
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(never).boxed());
    *response.status_mut() = status;
    response
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the proxy")
}

/// What happens to one body.
enum Spoil {
    Nothing,
    Slow,
    /// So many bytes pass.
    CutAfter(u64),
}

/// A body on its way.
struct Spoiled {
    body: Incoming,
    spoil: Spoil,
    pause: Option<Pin<Box<Sleep>>>,
    /// What came and is not passed on yet.
    rest: Bytes,
}

impl Spoiled {
    fn new(body: Incoming, spoil: Spoil) -> Self {
        Self { body, spoil, pause: None, rest: Bytes::new() }
    }

    /// The next piece of what came; not called when there is nothing.
    fn piece(&mut self) -> io::Result<Bytes> {
        match &mut self.spoil {
            Spoil::Nothing => Ok(std::mem::take(&mut self.rest)),
            Spoil::Slow => {
                self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                Ok(self.rest.split_to(PIECE_BYTES.min(self.rest.len())))
            }
            Spoil::CutAfter(0) => Err(cut()),
            Spoil::CutAfter(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(self.rest.len());
                *left -= most as u64;
                Ok(self.rest.split_to(most))
            }
        }
    }
}

impl Body for Spoiled {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(self.piece().map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let ahead = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(ahead.lower() + rest);
        if let Some(upper) = ahead.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
