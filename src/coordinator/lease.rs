//! Which slots are free: the driver's own account of [`Slots`](super::slots::Slots).
//!
//! A slot whose checkpoint has ended is leased again only after every state that was claimed in it
//! has come out of the queue. So the queue of states never holds more than one state for each slot
//! and task, and a queue of that capacity never refuses one.

/// What a slot is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    Free,
    /// A checkpoint is in flight; so many states were taken out of the queue.
    Used {
        taken: u32,
    },
    /// The checkpoint has ended; so many states are still on their way through the queue.
    Draining {
        outstanding: u32,
    },
}

/// One lease for each slot.
#[derive(Debug)]
pub(super) struct Leases(Box<[Lease]>);

impl Leases {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![Lease::Free; count].into())
    }

    pub(super) fn has_free(&self) -> bool {
        self.0.contains(&Lease::Free)
    }

    /// Leases the first free slot from `home` on, round the end.
    pub(super) fn take(&mut self, home: usize) -> Option<usize> {
        let free = |&index: &usize| self.0.get(index) == Some(&Lease::Free);
        let index = (home..self.0.len()).chain(0..home).find(free)?;
        *self.0.get_mut(index)? = Lease::Used { taken: 0 };
        Some(index)
    }

    /// A state of this slot came out of the queue.
    pub(super) fn taken(&mut self, index: usize) {
        let Some(lease) = self.0.get_mut(index) else {
            return;
        };
        *lease = match *lease {
            Lease::Free | Lease::Draining { outstanding: 0 | 1 } => Lease::Free,
            Lease::Used { taken } => Lease::Used { taken: taken.saturating_add(1) },
            Lease::Draining { outstanding } => Lease::Draining { outstanding: outstanding - 1 },
        };
    }

    /// The slot was closed with `claimed` acknowledgements in it.
    pub(super) fn give_back(&mut self, index: usize, claimed: u32) {
        let Some(lease) = self.0.get_mut(index) else {
            return;
        };
        let Lease::Used { taken } = *lease else {
            return;
        };
        *lease = match claimed.saturating_sub(taken) {
            0 => Lease::Free,
            outstanding => Lease::Draining { outstanding },
        };
    }
}
