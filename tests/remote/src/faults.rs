//! What a proxy does to requests, decided by a seed or by a test.

use std::time::Duration;

use crate::random::Random;

/// One thing that goes wrong between a client and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The request is refused with 503 `SlowDown`; the server never sees it.
    SlowDown,
    /// The request is refused with 500 `InternalError`; the server never sees it.
    Refused,
    /// The server did what it was asked; the client is told 500.
    DoneButRefused,
    /// The connection is cut before the server hears of the request.
    CutBefore,
    /// The connection is cut in the middle of the request's body, on both sides; instead of the answer
    /// when there is no body.
    CutInRequest,
    /// The server did what it was asked; the connection is cut instead of the answer.
    CutBeforeAnswer,
    /// The connection is cut in the middle of the answer's body; instead of the answer when there is
    /// none.
    CutInAnswer,
    /// Both bodies come in small pieces with pauses between them.
    Slow,
}

impl Fault {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::SlowDown,
        Self::Refused,
        Self::DoneButRefused,
        Self::CutBefore,
        Self::CutInRequest,
        Self::CutBeforeAnswer,
        Self::CutInAnswer,
        Self::Slow,
    ];
}

/// A request as the proxy sees it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// The path and the query.
    pub target: String,
    /// True with `If-None-Match`.
    pub is_conditional: bool,
}

/// The pause between two pieces of a slow body.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

/// Decides about each request in turn.
pub type Decide = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

/// Nothing goes wrong.
pub fn none() -> Decide {
    Box::new(|_| None)
}

/// Every request meets the same.
pub fn always(fault: Fault) -> Decide {
    Box::new(move |_| Some(fault))
}

/// Of a thousand requests so many meet a fault, one of all kinds alike.
pub fn seeded(seed: u64, of_a_thousand: u64) -> Decide {
    let mut random = Random::new(seed);
    Box::new(move |_| {
        let is_hit = random.below(1000) < of_a_thousand;
        is_hit.then(|| *random.pick(&Fault::ALL))
    })
}
