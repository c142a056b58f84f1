//! Goal: the life of checkpoints under the coordinator, scenario by scenario.
//!
//! Method: a bench holds one coordinator, plays its tasks and its store by hand, moves the time by
//! argument, and looks at the events that come out. The policies alone are tested beside them, and
//! whole recorded runs in `tests/flink_policy.rs`.
