//! Servers that speak the protocol of an object store, for tests on loopback, and what goes wrong
//! between a client and them.
//!
//! [`server`] is an S3 server over a directory that a test stops and starts; [`proxy`] stands before
//! it and spoils requests as [`faults`] decides; [`place`] says how a storage reaches either.
#![expect(clippy::unwrap_used, reason = "a server that cannot be started fails its test")]

mod bucket;
pub mod faults;
pub mod judge;
pub mod place;
pub mod proxy;
#[expect(dead_code, reason = "the tests of the crate use all of it")]
#[path = "../../support/random.rs"]
mod random;
pub mod server;
