//! Timers: a key's wish to be called at a time, part of keyed state.
//!
//! Owns which timers are pending and in which order they are due. They are stored with their keys, so a
//! checkpoint and a change of parallelism take them along; beside that lies an index by time, which is
//! made anew after a restore. Who waits for the time and calls the operator is the host.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::clock::Clock;
use crate::error::Result;
use crate::state::codec;
use crate::state::keyed_map::{KeyedMap, StateKey};

/// Which time a timer waits for (Flink: `TimeDomain`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeDomain {
    /// The times in the records, as far as the task's watermark has come.
    EventTime,
    /// The time of the machine.
    ProcessingTime,
}

/// A timer whose time has come (Flink: `OnTimerContext`). It is pending no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fired {
    /// The name that its timers were registered under.
    pub name: Rc<str>,
    /// The time that it was registered for, in milliseconds.
    pub at_ms: u64,
    /// Which time that is.
    pub domain: TimeDomain,
    encoded_key: Box<[u8]>,
}

impl Fired {
    /// The key that it was registered for (Flink: `getCurrentKey`).
    ///
    /// # Errors
    /// `Incompatible` when the key is no `K`.
    pub fn key<K: StateKey>(&self) -> Result<K> {
        codec::decode(&self.encoded_key)
    }

    pub(crate) fn encoded_key(&self) -> &[u8] {
        &self.encoded_key
    }
}

/// The timers of an operator under one name (Flink: `TimerService`).
///
/// A cheap handle on state of the task's own thread. A timer belongs to its key, as an entry of a
/// [`KeyedMap`] does; there is one at most for a key, a time and a domain. Those that are due fire in
/// order of time and then of the encoded key, those of event time before those of processing time.
pub struct Timers<K> {
    event: Rc<Pending<K>>,
    processing: Rc<Pending<K>>,
    time: Rc<Time>,
}

impl<K> Clone for Timers<K> {
    fn clone(&self) -> Self {
        Self {
            event: Rc::clone(&self.event),
            processing: Rc::clone(&self.processing),
            time: Rc::clone(&self.time),
        }
    }
}

impl<K> fmt::Debug for Timers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("event", &self.event.due.borrow().len())
            .field("processing", &self.processing.due.borrow().len())
            .finish_non_exhaustive()
    }
}

impl<K: StateKey> Timers<K> {
    /// Fires once no record with the event time `at_ms`, in milliseconds, or an earlier one can come any
    /// more: soon, when that is so already (Flink: `registerEventTimeTimer`). At the end of all data every
    /// such timer fires. Nothing happens when it is pending already.
    ///
    /// # Errors
    /// `Invalid` when the key cannot be encoded or belongs to another subtask.
    pub fn register_event_time(&self, key: &K, at_ms: u64) -> Result<()> {
        self.event.register(key, at_ms)
    }

    /// Fires when the machine's clock shows `at_ms`, in milliseconds since 1970, or later, between two
    /// records (Flink: `registerProcessingTimeTimer`). Those that are pending at the end of all data do
    /// not fire any more. Nothing happens when it is pending already.
    ///
    /// # Errors
    /// As [`register_event_time`](Self::register_event_time).
    pub fn register_processing_time(&self, key: &K, at_ms: u64) -> Result<()> {
        self.processing.register(key, at_ms)
    }

    /// Takes a timer back (Flink: `deleteEventTimeTimer`). Nothing happens when there is none.
    ///
    /// # Errors
    /// As [`register_event_time`](Self::register_event_time).
    pub fn delete_event_time(&self, key: &K, at_ms: u64) -> Result<()> {
        self.event.delete(key, at_ms)
    }

    /// Takes a timer back (Flink: `deleteProcessingTimeTimer`). Nothing happens when there is none.
    ///
    /// # Errors
    /// As [`register_event_time`](Self::register_event_time).
    pub fn delete_processing_time(&self, key: &K, at_ms: u64) -> Result<()> {
        self.processing.delete(key, at_ms)
    }

    /// How far event time has come in this task, in milliseconds; none before the first watermark, and
    /// `u64::MAX` at the end of all data (Flink: `currentWatermark`).
    pub fn watermark(&self) -> Option<u64> {
        self.time.watermark.get()
    }

    /// What the machine's clock shows, in milliseconds since 1970 (Flink: `currentProcessingTime`).
    pub fn processing_time_ms(&self) -> u64 {
        self.time.clock.wall_ms()
    }
}

/// Where pending timers are kept with their keys.
trait TimerStore<K> {
    /// False when it was there.
    fn insert(&self, key: &K, at_ms: u64) -> Result<bool>;

    /// False when it was not there.
    fn remove(&self, key: &K, at_ms: u64) -> Result<bool>;

    fn for_each(&self, visit: &mut dyn FnMut(K, u64) -> Result<()>) -> Result<()>;
}

/// A key's pending times as its value.
type Times<K> = KeyedMap<K, BTreeSet<u64>>;

impl<K: StateKey> TimerStore<K> for Times<K> {
    fn insert(&self, key: &K, at_ms: u64) -> Result<bool> {
        // One that is there already must not make its entry count as changed.
        if self.with(key, |times| times.is_some_and(|times| times.contains(&at_ms)))? {
            return Ok(false);
        }
        self.update(key, |times| times.insert(at_ms))
    }

    fn remove(&self, key: &K, at_ms: u64) -> Result<bool> {
        let times = self
            .with(key, |times| times.filter(|times| times.contains(&at_ms)).map(BTreeSet::len))?;
        match times {
            None => Ok(false),
            Some(1) => KeyedMap::remove(self, key).map(|_| true),
            Some(_) => self.update(key, |times| times.remove(&at_ms)),
        }
    }

    fn for_each(&self, visit: &mut dyn FnMut(K, u64) -> Result<()>) -> Result<()> {
        KeyedMap::for_each(self, |key, times| {
            let mut encoded = Vec::new();
            codec::encode_into(&key, &mut encoded)?;
            times.iter().try_for_each(|at_ms| visit(codec::decode(&encoded)?, *at_ms))
        })
    }
}

/// A time and the encoding of a key.
type Due = (u64, Box<[u8]>);

/// The pending timers of one name and domain.
struct Pending<K> {
    store: Box<dyn TimerStore<K>>,
    /// INVARIANT: the timers of the store by time, once it is filled.
    due: RefCell<BTreeSet<Due>>,
}

impl<K: StateKey> Pending<K> {
    fn new(store: Times<K>) -> Rc<Self> {
        Rc::new(Self { store: Box::new(store), due: RefCell::default() })
    }

    fn register(&self, key: &K, at_ms: u64) -> Result<()> {
        if self.store.insert(key, at_ms)? {
            self.due.borrow_mut().insert(due(key, at_ms)?);
        }
        Ok(())
    }

    fn delete(&self, key: &K, at_ms: u64) -> Result<()> {
        if self.store.remove(key, at_ms)? {
            self.due.borrow_mut().remove(&due(key, at_ms)?);
        }
        Ok(())
    }
}

fn due<K: StateKey>(key: &K, at_ms: u64) -> Result<Due> {
    let mut encoded = Vec::new();
    codec::encode_into(key, &mut encoded)?;
    Ok((at_ms, encoded.into()))
}

/// [`Pending`] without the type of its keys.
trait AnyPending {
    fn first_ms(&self) -> Option<u64>;
    fn first(&self) -> Option<Due>;
    fn take(&self, due: &Due) -> Result<()>;
    fn rebuild(&self) -> Result<()>;
}

impl<K: StateKey> AnyPending for Pending<K> {
    fn first_ms(&self) -> Option<u64> {
        self.due.borrow().first().map(|(at_ms, _)| *at_ms)
    }

    fn first(&self) -> Option<Due> {
        self.due.borrow().first().cloned()
    }

    fn take(&self, due: &Due) -> Result<()> {
        self.store.remove(&codec::decode(&due.1)?, due.0)?;
        self.due.borrow_mut().remove(due);
        Ok(())
    }

    fn rebuild(&self) -> Result<()> {
        let mut all = BTreeSet::new();
        self.store.for_each(&mut |key, at_ms| {
            all.insert(due(&key, at_ms)?);
            Ok(())
        })?;
        *self.due.borrow_mut() = all;
        Ok(())
    }
}

/// What a task knows of time.
struct Time {
    watermark: Cell<Option<u64>>,
    clock: Arc<dyn Clock>,
}

struct Named {
    name: Rc<str>,
    pending: Rc<dyn AnyPending>,
}

/// All timers of one subtask.
pub(crate) struct TimerSet {
    time: Rc<Time>,
    event: Vec<Named>,
    processing: Vec<Named>,
}

impl fmt::Debug for TimerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerSet").field("names", &self.event.len()).finish_non_exhaustive()
    }
}

impl TimerSet {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let time = Rc::new(Time { watermark: Cell::new(None), clock });
        Self { time, event: Vec::new(), processing: Vec::new() }
    }

    /// Timers under a name, kept in these states.
    pub(crate) fn add<K: StateKey>(
        &mut self,
        name: &str,
        event: Times<K>,
        processing: Times<K>,
    ) -> Timers<K> {
        let (event, processing) = (Pending::new(event), Pending::new(processing));
        let name: Rc<str> = name.into();
        self.event.push(Named { name: Rc::clone(&name), pending: Rc::<Pending<K>>::clone(&event) });
        self.processing.push(Named { name, pending: Rc::<Pending<K>>::clone(&processing) });
        Timers { event, processing, time: Rc::clone(&self.time) }
    }

    /// Finds what is pending in states that were filled.
    pub(crate) fn rebuild(&self) -> Result<()> {
        let mut all = self.event.iter().chain(&self.processing);
        all.try_for_each(|named| named.pending.rebuild())
    }

    pub(crate) fn set_watermark(&self, watermark: Option<u64>) {
        self.time.watermark.set(watermark);
    }

    /// The time of the machine for which the next timer waits.
    pub(crate) fn next_processing_ms(&self) -> Option<u64> {
        next_ms(&self.processing)
    }

    /// Which timers are due, if any.
    fn domain_due(&self) -> Option<TimeDomain> {
        let event = next_ms(&self.event);
        if event.is_some() && event <= self.time.watermark.get() {
            return Some(TimeDomain::EventTime);
        }
        let processing = self.next_processing_ms()?;
        (processing <= self.time.clock.wall_ms()).then_some(TimeDomain::ProcessingTime)
    }

    pub(crate) fn is_due(&self) -> bool {
        self.domain_due().is_some()
    }

    /// The first timer that is due, which is pending no longer.
    pub(crate) fn take_due(&self) -> Result<Option<Fired>> {
        let Some(domain) = self.domain_due() else { return Ok(None) };
        let all = match domain {
            TimeDomain::EventTime => &self.event,
            TimeDomain::ProcessingTime => &self.processing,
        };
        let firsts = all.iter().filter_map(|named| Some((named.pending.first()?, named)));
        let Some((due, named)) = firsts.min_by(|(a, _), (b, _)| a.cmp(b)) else { return Ok(None) };
        named.pending.take(&due)?;
        let (at_ms, encoded_key) = due;
        Ok(Some(Fired { name: Rc::clone(&named.name), at_ms, domain, encoded_key }))
    }
}

fn next_ms(all: &[Named]) -> Option<u64> {
    all.iter().filter_map(|named| named.pending.first_ms()).min()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::clock::ManualClock;
    use crate::error::ErrorKind;
    use crate::ids::CheckpointId;
    use crate::state::{SectionBody, SectionKey, SnapshotSink, StateScope, key_group_range};

    struct Subtask {
        scope: StateScope,
        set: TimerSet,
        timers: Timers<u64>,
    }

    fn subtask(subtask: u32, parallelism: u32) -> Subtask {
        let mut scope = StateScope::new(subtask, parallelism, 128);
        let mut set = TimerSet::new(Arc::new(ManualClock::new(500)));
        let event = scope.keyed_map("t.event").unwrap();
        let processing = scope.keyed_map("t.processing").unwrap();
        let timers = set.add("t", event, processing);
        Subtask { scope, set, timers }
    }

    /// What is due now, one after the other.
    fn fire_all(set: &TimerSet) -> Vec<(u64, u64)> {
        let mut fired = Vec::new();
        while let Some(timer) = set.take_due().unwrap() {
            fired.push((timer.at_ms, timer.key::<u64>().unwrap()));
        }
        fired
    }

    #[derive(Default)]
    struct Collect(Vec<(SectionKey, Vec<u8>)>);

    impl SnapshotSink for Collect {
        fn section(&mut self, key: &SectionKey, body: SectionBody<'_>) -> Result<()> {
            let mut bytes = Vec::new();
            body(&mut bytes as &mut dyn Write)?;
            self.0.push((key.clone(), bytes));
            Ok(())
        }
    }

    #[test]
    fn what_is_due_fires_by_time_and_encoded_key_event_time_first() {
        let Subtask { set, timers, .. } = subtask(0, 1);
        for (key, at) in [(256, 10), (1, 10), (5, 9), (5, 11), (1, 10)] {
            timers.register_event_time(&key, at).unwrap();
        }
        for (key, at) in [(7, 500), (8, 499), (9, 501)] {
            timers.register_processing_time(&key, at).unwrap();
        }
        timers.delete_processing_time(&7, 499).unwrap();
        assert_eq!(set.next_processing_ms(), Some(499));
        set.set_watermark(Some(10));
        // 256 is 0, 1 in little-endian bytes.
        assert_eq!(fire_all(&set), [(9, 5), (10, 256), (10, 1), (499, 8), (500, 7)]);
        assert!(!set.is_due() && set.next_processing_ms() == Some(501));
    }

    #[test]
    fn no_event_timer_is_due_before_the_first_watermark() {
        let Subtask { set, timers, .. } = subtask(0, 1);
        timers.register_event_time(&1, 0).unwrap();
        assert_eq!((set.is_due(), timers.watermark()), (false, None));
        set.set_watermark(Some(0));
        assert_eq!(fire_all(&set), [(0, 1)]);
    }

    #[test]
    fn pending_timers_come_back_at_the_owners_of_their_keys_and_fired_ones_do_not() {
        let before = subtask(0, 1);
        for key in 0..300 {
            before.timers.register_event_time(&key, key % 10).unwrap();
            before.timers.register_event_time(&key, 50).unwrap();
        }
        before.set.set_watermark(Some(4));
        assert_eq!(fire_all(&before.set).len(), 150);
        before.timers.delete_event_time(&299, 50).unwrap();
        before.timers.delete_event_time(&299, 9).unwrap();
        let mut sections = Collect::default();
        before.scope.freeze(CheckpointId(1)).write(&mut sections).unwrap();

        let mut fired = Vec::new();
        for index in 0..3 {
            let after = subtask(index, 3);
            let groups = key_group_range(index, 128, 3);
            for (key, bytes) in sections.0.iter().filter(|(key, _)| groups.contains(&key.index)) {
                after.scope.restore(key, &mut bytes.as_slice()).unwrap();
            }
            after.set.rebuild().unwrap();
            after.set.set_watermark(Some(50));
            let here = fire_all(&after.set);
            assert!(here.is_sorted_by_key(|(at, key)| (*at, key.to_le_bytes())));
            fired.extend(here);
            // Nothing is left beneath the index either.
            let left = after.timers.event.store.for_each(&mut |key, at| panic!("{key} at {at}"));
            left.unwrap();
        }
        fired.sort_unstable();
        let late = (0..299).map(|key| (50, key));
        let mut expected: Vec<(u64, u64)> =
            (0..299).filter(|key| key % 10 > 4).map(|key| (key % 10, key)).chain(late).collect();
        expected.sort_unstable();
        assert_eq!(fired, expected);
    }

    #[test]
    fn a_timer_of_a_key_of_another_subtask_is_refused() {
        let Subtask { timers, .. } = subtask(1, 2);
        let refused = (0..100).filter_map(|key| timers.register_event_time(&key, 1).err());
        let refused: Vec<_> = refused.map(|error| error.kind()).collect();
        assert!((1..100).contains(&refused.len()));
        assert!(refused.iter().all(|kind| *kind == ErrorKind::Invalid));
    }
}
