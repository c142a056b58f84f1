//! How far event time has come in a task: the least of its channels.
//!
//! Owns the rule and the section of a checkpoint. Watermarks that are on their way at a cut are not
//! logged: after a restore every channel starts at the watermark of the task, and the sources say theirs
//! again. So nothing happens early, and a record that was on its way is never behind a watermark that it
//! was not behind before. The end of all data is watermark `u64::MAX`, as in Flink. It is not stored: the
//! sources reach their ends again after a restore, unless there is more to read by then.

use crate::error::Result;
use crate::local::node::TaskEnv;
use crate::state::{SectionKey, SectionKind, SnapshotSink, append_entry, codec, read_entries};

/// The watermark behind the last record of all.
pub(super) const AT_END: u64 = u64::MAX;

/// The state name of a task's watermark.
const WATERMARK: &str = "watermark";

/// The watermarks of a task's input channels; there is none before the first.
#[derive(Debug)]
pub(super) struct ChannelWatermarks {
    channels: Vec<Option<u64>>,
    combined: Option<u64>,
}

impl ChannelWatermarks {
    /// So many channels, all at the watermark that was restored.
    pub(super) fn new(channels: usize, restored: Option<u64>) -> Self {
        Self { channels: vec![restored; channels], combined: restored }
    }

    /// A channel has come so far. The watermark of the task if that has risen.
    ///
    /// INVARIANT: neither goes back, whatever the senders say.
    pub(super) fn rise(&mut self, channel: usize, ms: u64) -> Option<u64> {
        let of_channel = self.channels.get_mut(channel)?;
        *of_channel = (*of_channel).max(Some(ms));
        let least = self.channels.iter().min().copied().flatten();
        if least <= self.combined {
            return None;
        }
        self.combined = least;
        least
    }

    /// No record comes on this channel any more: it holds the others back no longer.
    pub(super) fn end(&mut self, channel: usize) -> Option<u64> {
        self.rise(channel, AT_END)
    }
}

/// Writes the section of a task's watermark, of so many subtasks; none when there is no watermark.
pub(super) fn write_watermark(
    watermark: Option<u64>,
    parallelism: u32,
    sink: &mut dyn SnapshotSink,
) -> Result<()> {
    let Some(ms) = watermark else { return Ok(()) };
    let mut entry = Vec::new();
    append_entry(&mut entry, &(ms, parallelism))?;
    let key = SectionKey::new(SectionKind::Watermark, WATERMARK);
    sink.section(&key, &mut |out| Ok(out.write_all(&entry)?))
}

/// The watermark that a checkpoint gives one subtask.
#[derive(Debug, Default)]
pub(super) struct RestoredWatermark {
    least: Option<u64>,
    sections: u32,
    /// How many subtasks the operator had.
    subtasks: u32,
}

impl RestoredWatermark {
    /// Takes a section back. When the operator has another parallelism than then, every subtask is
    /// given the sections of all.
    pub(super) fn take(&mut self, task: &mut TaskEnv) -> Result<()> {
        read_entries(task.state.body(), |_, bytes| {
            let (ms, subtasks): (u64, u32) = codec::decode(bytes)?;
            self.least = Some(self.least.map_or(ms, |least| least.min(ms)));
            self.sections = self.sections.saturating_add(1);
            self.subtasks = subtasks;
            Ok(())
        })
    }

    /// The least of all old subtasks; none when one of them had none.
    pub(super) fn into_least(self, rescaled: bool) -> Option<u64> {
        self.least.filter(|_| !rescaled || self.sections == self.subtasks)
    }
}

/// What a task stores and passes on of its watermark.
#[derive(Debug)]
pub(super) struct Passed {
    /// The newest but [`AT_END`].
    stored: Option<u64>,
    waiting: Option<u64>,
}

impl Passed {
    /// A restored watermark is passed on again: the tasks downstream may have had less.
    pub(super) fn new(restored: Option<u64>) -> Self {
        Self { stored: restored, waiting: restored }
    }

    /// The watermark has risen.
    pub(super) fn set(&mut self, ms: u64) {
        if ms != AT_END && self.stored < Some(ms) {
            self.stored = Some(ms);
            self.waiting = Some(ms);
        }
    }

    /// What is part of a checkpoint.
    pub(super) fn stored(&self) -> Option<u64> {
        self.stored
    }

    /// What is still to be passed on, once.
    pub(super) fn take(&mut self) -> Option<u64> {
        self.waiting.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_is_the_least_of_the_channels_and_never_goes_back() {
        let mut marks = ChannelWatermarks::new(2, None);
        assert_eq!(marks.rise(0, 7), None, "the other has said nothing");
        assert_eq!(marks.rise(1, 3), Some(3));
        assert_eq!(marks.rise(1, 2), None);
        assert_eq!(marks.rise(0, 5), None);
        assert_eq!(marks.rise(1, 9), Some(7), "a channel does not go back either");
    }

    #[test]
    fn a_channel_that_has_ended_holds_nothing_back() {
        let mut marks = ChannelWatermarks::new(3, None);
        assert_eq!((marks.rise(0, 0), marks.end(1)), (None, None));
        assert_eq!(marks.rise(2, 4), Some(0));
        assert_eq!(marks.end(0), Some(4));
        assert_eq!(marks.end(2), Some(AT_END));
    }

    #[test]
    fn a_restored_task_starts_at_its_watermark() {
        let mut marks = ChannelWatermarks::new(2, Some(10));
        assert_eq!((marks.rise(0, 8), marks.rise(1, 8)), (None, None));
        assert_eq!((marks.rise(0, 12), marks.rise(1, 11)), (None, Some(11)));
    }

    #[test]
    fn an_old_subtask_without_a_watermark_leaves_the_new_ones_without() {
        let two_of = |subtasks| RestoredWatermark { least: Some(5), sections: 2, subtasks };
        assert_eq!(two_of(2).into_least(true), Some(5));
        assert_eq!(two_of(3).into_least(true), None);
        assert_eq!(two_of(3).into_least(false), Some(5));
    }

    #[test]
    fn the_end_of_the_data_is_neither_stored_nor_passed_on() {
        let mut passed = Passed::new(Some(4));
        assert_eq!((passed.take(), passed.take()), (Some(4), None));
        passed.set(6);
        passed.set(AT_END);
        assert_eq!((passed.take(), passed.stored()), (Some(6), Some(6)));
    }
}
