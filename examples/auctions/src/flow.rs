//! What the job does: events to winners to averages to rows of a table.

use std::path::PathBuf;

use tidegate::Result;
use tidegate::local::{Flow, Output, Scope};

use crate::event::{Event, Row, Winner};
use crate::faults::Faults;
use crate::prices::Averages;
use crate::source::Events;
use crate::sqlite::SqliteSink;
use crate::winners::Winners;

/// Puts the job together. Its exchanges are keyed, so every barrier crosses many-to-many edges.
pub(crate) fn flow(
    events: Events,
    parallelism: u32,
    database: PathBuf,
    faults: Faults,
) -> Result<Flow> {
    let flow = Flow::new();
    flow.source("events", vec![events])?
        .key_by(Event::key)
        .operator("winners", parallelism, move |scope: &mut Scope| {
            faults.register(scope)?;
            Winners::new(scope)
        })?
        .key_by(|winner: &Winner| winner.category)
        .process("averages", parallelism, |scope| {
            let mut averages = Averages::new(scope)?;
            Ok(move |winner: Winner, output: &mut Output<Row>| averages.take(winner, output))
        })?
        .key_by(|row: &Row| row.winner.auction)
        .sink("results", parallelism, move |context| {
            Ok(SqliteSink::new(database.clone(), context))
        })?;
    Ok(flow)
}
