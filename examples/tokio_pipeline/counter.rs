//! Counts the records of each key, apart by their source.

use std::collections::BTreeMap;
use std::io::Read;

use tidegate::state::{SectionKey, SectionKind, SnapshotSink, Stateful};
use tidegate::{CheckpointId, Error, ErrorKind, Result};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::spawn_blocking;

use crate::host::Event;
use crate::input::{Operator, Snapshot, Write};
use crate::job::SOURCES;
use crate::record::{Message, Outputs, Record, group_of, take};

/// The name of the counts among the sections of a counter.
const COUNTS: &str = "counts";

type OfKey = [u64; SOURCES as usize];

/// The counts of the keys of each key group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(BTreeMap<u32, BTreeMap<u64, OfKey>>);

impl Counts {
    fn count(&mut self, record: Record) -> Result<u64> {
        let group = self.0.entry(group_of(record.key())).or_default();
        let counts = group.entry(record.key()).or_default();
        let source = usize::try_from(record.source).ok();
        let count = source.and_then(|source| counts.get_mut(source)).ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("there is no source {}", record.source))
        })?;
        *count += 1;
        Ok(*count)
    }

    /// Adds the number of records of each key.
    pub(crate) fn add_to(&self, totals: &mut BTreeMap<u64, u64>) {
        for (key, counts) in self.0.values().flatten() {
            *totals.entry(*key).or_default() += counts.iter().sum::<u64>();
        }
    }
}

impl Stateful for Counts {
    type Frozen = Self;

    /// A few kilobytes are copied; a larger state shares what does not change.
    fn freeze(&mut self, _: CheckpointId) -> Self {
        self.clone()
    }

    fn write(frozen: Self, sink: &mut dyn SnapshotSink) -> Result<()> {
        for (group, keys) in &frozen.0 {
            let key = SectionKey::new(SectionKind::Keyed, COUNTS).with_index(*group);
            sink.section(&key, &mut |out| {
                for (key, counts) in keys {
                    out.write_all(&key.to_le_bytes())?;
                    for count in counts {
                        out.write_all(&count.to_le_bytes())?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn restore(&mut self, key: &SectionKey, body: &mut dyn Read) -> Result<()> {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        let (mut left, group) = (bytes.as_slice(), self.0.entry(key.index).or_default());
        while !left.is_empty() {
            let key = u64::from_le_bytes(take(&mut left)?);
            let counts = group.entry(key).or_default();
            for count in counts {
                *count = u64::from_le_bytes(take(&mut left)?);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Counter {
    counts: Counts,
    outputs: Outputs,
    events: UnboundedSender<Event>,
}

impl Counter {
    pub(crate) fn new(counts: Counts, outputs: Outputs, events: UnboundedSender<Event>) -> Self {
        Self { counts, outputs, events }
    }
}

impl Operator for Counter {
    async fn record(&mut self, record: Record) -> Result<()> {
        let count = self.counts.count(record)?;
        self.outputs.emit(Record { count, ..record }).await
    }

    async fn forward(&mut self, message: Message) -> Result<()> {
        self.outputs.broadcast(message).await
    }

    async fn freeze(&mut self, id: CheckpointId) -> Result<Write> {
        let mut frozen = Some(self.counts.freeze(id));
        Ok(Box::new(move |sink| Counts::write(frozen.take().unwrap_or_default(), sink)))
    }

    async fn write(&mut self, snapshot: Snapshot) -> Result<()> {
        spawn_blocking(move || snapshot.acknowledge());
        Ok(())
    }

    async fn completed(&mut self, _: CheckpointId) -> Result<()> {
        Ok(())
    }

    fn is_done(&self) -> bool {
        true
    }

    async fn finish(self) -> Result<()> {
        let _ = self.events.send(Event::Counted(self.counts));
        self.outputs.broadcast(Message::End).await
    }
}
