//! Goal: the stream goes on exactly where it is told to. Method: read it whole, then from many
//! positions, and compare.

use super::*;

fn source(limit: u64) -> Events {
    Events::new(Some(limit), RateLimit::new(None), &Arc::default())
}

/// What is left of the stream, with the position before each event.
fn rest(source: &mut Events) -> Vec<(Position, Event)> {
    let mut all = Vec::new();
    loop {
        let position = source.position();
        match source.next().unwrap() {
            Next::Item(event) => all.push((position, event)),
            Next::Wait(_) => {}
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
fn time_never_goes_back_and_ends_for_many_keys() {
    let all = rest(&mut source(100_000));
    assert!(all.iter().map(|(_, event)| event.at()).is_sorted());
    let ends = all.iter().filter(|(_, event)| event.at() == u64::MAX).count();
    assert_eq!(ends as u64, ENDS_OF_TIME);
}

#[test]
fn a_stream_that_has_ended_cannot_be_made_longer() {
    let mut short = source(100);
    while short.position().ends == 0 {
        short.next().unwrap();
    }
    let position = short.position();
    assert_eq!(source(200).seek(position).unwrap_err().kind(), ErrorKind::Incompatible);
    source(100).seek(position).unwrap();
}
