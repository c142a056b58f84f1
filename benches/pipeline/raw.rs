//! The pipeline on bare channels.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Select, Sender, bounded};

use crate::work::{PARALLELISM, RECORDS, Record, Seen, record};

/// As many records as a channel of tidegate holds by default.
const QUEUED: usize = 8 * 1024;

pub(crate) fn run() -> Duration {
    let seen = Seen::new();
    let (mut to, mut from) = (vec![Vec::new(), Vec::new()], vec![Vec::new(), Vec::new()]);
    for senders in &mut to {
        for receivers in &mut from {
            let (sender, receiver) = bounded::<Record>(QUEUED);
            senders.push(sender);
            receivers.push(receiver);
        }
    }
    thread::scope(|scope| {
        for (source, lanes) in (0..).zip(to) {
            scope.spawn(move || produce(source, &lanes));
        }
        for (index, inputs) in from.into_iter().enumerate() {
            let (sender, receiver) = bounded::<Record>(QUEUED);
            scope.spawn(move || count(&inputs, &sender));
            let seen = seen.clone();
            scope.spawn(move || {
                for (number, _) in (1..).zip(receiver) {
                    seen.set(index, number);
                }
            });
        }
        seen.wait()
    })
}

fn produce(source: u64, lanes: &[Sender<Record>]) {
    for number in 0..RECORDS / PARALLELISM {
        let record = record(number * PARALLELISM + source);
        lanes[usize::try_from(record.0 % PARALLELISM).unwrap()].send(record).unwrap();
    }
}

fn count(inputs: &[Receiver<Record>], out: &Sender<Record>) {
    let mut counts = HashMap::new();
    let mut open: Vec<&Receiver<Record>> = inputs.iter().collect();
    while !open.is_empty() {
        let mut moved = false;
        for input in &open {
            for (key, value) in input.try_iter().take(64) {
                moved = true;
                let count = counts.entry(key).or_insert(0_u64);
                *count += 1;
                out.send((key, value)).unwrap();
            }
        }
        if !moved {
            let mut select = Select::new();
            for input in &open {
                select.recv(input);
            }
            let ready = select.ready();
            if open[ready].is_empty() && open[ready].try_recv().is_err() {
                open.remove(ready);
            }
        }
    }
}
