//! Whole jobs on the host: every record must be in the output and in the state exactly once,
//! whatever fails and whenever.
//!
//! Sources yield numbers and fail at chosen points; sinks keep their transactions in memory
//! outside of the job, as a database would. The expected result is computed apart.

mod ends;
mod exactly_once;
mod in_flight;
mod modes;
mod refusals;
mod restoring;
mod savepoints;
mod sink_protocol;
mod statistics;
mod support;
mod timers;
mod user_code;
mod windows;
mod wishes;
