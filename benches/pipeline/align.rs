//! What a checkpoint costs a task of 64 inputs in its barrier handler: 64 barriers, the answers taken.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use tidegate::CheckpointId;
use tidegate::barrier::{BarrierAligner, BarrierEvent, Moment};
use tidegate::message::{Alignment, Barrier, BarrierOptions, CheckpointType};

const INPUTS: u32 = 64;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("alignment");
    let kinds = [
        ("aligned_64_inputs", Alignment::Aligned, BarrierAligner::aligned(INPUTS)),
        ("unaligned_64_inputs", Alignment::Unaligned, BarrierAligner::alternating(INPUTS)),
        ("at_least_once_64_inputs", Alignment::AtLeastOnce, BarrierAligner::at_least_once(INPUTS)),
    ];
    for (name, alignment, mut aligner) in kinds {
        let kind = CheckpointType::Checkpoint;
        let options = BarrierOptions { kind, alignment, aligned_timeout: None };
        let (mut id, mut actions) = (0, Vec::new());
        let at = Moment { now: Duration::from_secs(1), wall_ms: 1_000 };
        group.bench_function(name, |b| {
            b.iter(|| {
                id += 1;
                let barrier = Barrier { id: CheckpointId(id), timestamp_ms: 1_000, options };
                for channel in 0..INPUTS {
                    let event = BarrierEvent::Announcement { channel, barrier };
                    aligner.handle(event, at, &mut actions).unwrap();
                    let event = BarrierEvent::Barrier { channel, barrier };
                    aligner.handle(event, at, &mut actions).unwrap();
                    black_box(actions.drain(..).count());
                }
            });
        });
    }
}
