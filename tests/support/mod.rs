//! What the tests of the example share.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails the test")]

pub(crate) mod child;
pub(crate) mod corpus;
pub(crate) mod count;
pub(crate) mod random;
