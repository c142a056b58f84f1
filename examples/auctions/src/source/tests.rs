//! Goal: the stream goes on exactly where it is told to. Method: read it whole, then from many
//! positions, and compare.

use super::*;

fn source(limit: u64) -> Events {
    Events::new(Some(limit), 5_000, RateLimit::new(None), &Arc::default())
}

/// What is left of the stream, with the position before each event.
fn rest(source: &mut Events) -> Vec<(Position, Event)> {
    let mut all = Vec::new();
    loop {
        let position = source.position();
        match source.next().unwrap() {
            Next::Item(event) => all.push((position, event)),
            Next::Watermark(_) | Next::Wait(_) => {}
            Next::End => return all,
        }
    }
}

#[test]
fn every_position_gives_the_rest_of_the_stream() {
    let all = rest(&mut source(2_000));
    let step = 97;
    for (index, (position, _)) in all.iter().enumerate().step_by(step) {
        let mut again = source(2_000);
        again.seek(*position).unwrap();
        let rest: Vec<_> = rest(&mut again).into_iter().map(|(_, event)| event).collect();
        assert!(rest.iter().eq(all.iter().skip(index).map(|(_, event)| event)), "{position:?}");
    }
}

#[test]
fn no_event_is_behind_a_watermark_and_each_millisecond_is_told_once_from_any_position() {
    for first in [0, 1, 777, 50_000] {
        let mut source = source(first + 10_000);
        source.seek(Position { event: first, ..source.position() }).unwrap();
        let (mut told, mut times) = (Vec::new(), std::collections::BTreeSet::new());
        loop {
            match source.next().unwrap() {
                Next::Item(event) => {
                    assert!(told.last() < Some(&event.at()), "{event:?} is late");
                    times.insert(event.at() - 1);
                }
                Next::Watermark(ms) => told.push(ms),
                Next::Wait(_) => {}
                Next::End => break,
            }
        }
        assert!(told.iter().eq(times.iter()));
    }
}

#[test]
fn a_stream_that_has_ended_cannot_be_made_longer() {
    let mut short = source(100);
    while short.next().unwrap() != Next::End {}
    let position = short.position();
    assert_eq!(source(200).seek(position).unwrap_err().kind(), ErrorKind::Incompatible);
    source(100).seek(position).unwrap();
}

#[test]
fn a_position_of_another_stream_is_refused() {
    let other = Events::new(None, 5_001, RateLimit::new(None), &Arc::default()).position();
    assert_eq!(source(100).seek(other).unwrap_err().kind(), ErrorKind::Incompatible);
}
