//! Goal: readers of a `Latest` never go back, the writer never waits, the newest value is not lost.
//!
//! Method: loom runs every interleaving (of at most two preemptions) of one writer and up to three
//! readers. The cell is a mutex here, so this proves the protocol over it; a reader that waits for a
//! value that is lost is a deadlock, which loom reports.

#![cfg(tidegate_loom)]

use std::sync::Arc as Shared;

use ::loom::model::Builder;

use crate::coordinator::Latest;
use crate::sync::{Arc, AtomicU64, Ordering, thread};

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(test);
}

#[test]
fn no_reader_goes_back_and_the_newest_value_is_not_lost() {
    model(|| {
        let (mut publisher, latest) = Latest::new(Shared::new(0_u64));
        let other = latest.clone();
        let reading = thread::spawn(move || {
            let (first, second) = (*other.read(), *other.read());
            assert!(first <= second, "{first} then {second}");
        });
        let writing = thread::spawn(move || {
            publisher.publish(Shared::new(1));
            publisher.publish(Shared::new(2));
        });
        let (first, second) = (*latest.read(), *latest.read());
        assert!(first <= second, "{first} then {second}");
        writing.join().unwrap();
        assert_eq!(*latest.read(), 2, "while the other reader may still hold it");
        reading.join().unwrap();
        assert_eq!(*latest.read(), 2);
    });
}

#[test]
fn what_one_reader_was_shown_no_other_reader_misses() {
    model(|| {
        let (mut publisher, latest) = Latest::new(Shared::new(0_u64));
        let shown = Arc::new(AtomicU64::new(0));
        let (other, show) = (latest.clone(), Arc::clone(&shown));
        let reading = thread::spawn(move || show.store(*other.read(), Ordering::Release));
        let third = latest.clone();
        let disturbing = thread::spawn(move || _ = third.read());
        publisher.publish(Shared::new(1));
        let floor = shown.load(Ordering::Acquire);
        assert!(*latest.read() >= floor.max(1), "what was published or shown before is missed");
        reading.join().unwrap();
        disturbing.join().unwrap();
        assert_eq!(*latest.read(), 1);
    });
}
