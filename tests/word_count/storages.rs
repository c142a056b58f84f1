//! Goal: the contract holds in every storage that `--storage` names. Method: the rounds of kills and
//! the refusals over files, runs to their end in the others, and texts that are wrong.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::support::child::{self, Run};
use super::support::corpus;
use super::support::count::{self, assert_same};
use super::{
    changes_are_refused, contents, dir, outputs_are_exact_after_kills, refused, small_corpus,
    stopped_run,
};

/// The file system storage of a run in `dir`.
fn file_uri(dir: &Path) -> String {
    format!("file://{}", dir.join("files").display())
}

#[test]
fn outputs_are_exact_after_any_number_of_kills_in_files() {
    outputs_are_exact_after_kills("files", |round| ["--storage".into(), file_uri(round)]);
}

/// Two tiers of a run in `dir`: a store of its own, copied to files.
fn tiered_uri(dir: &Path) -> String {
    let fast = dir.join("fast");
    format!("tiered:?fast=sled://{}&durable={}", fast.display(), file_uri(dir))
}

#[test]
fn outputs_are_exact_after_any_number_of_kills_on_two_tiers() {
    outputs_are_exact_after_kills("tiered", |round| ["--storage".into(), tiered_uri(round)]);
}

/// Each kill takes the fast tier along: the next start goes back behind what completed there alone.
#[test]
fn outputs_are_exact_after_kills_that_take_the_fast_tier_with_them() {
    let dir = dir();
    let inputs = corpus::write(dir.path(), 600_000, 1);
    let expected = count::expected(&inputs);
    let rate = (expected.lines.len() / 4).to_string();
    let paced = ["--interval", "20ms", "--rate", &rate];
    let uri = tiered_uri(dir.path());
    let run = Run::new(dir.path(), &inputs).with(&["--storage", &uri]).with(&paced);
    let log = dir.path().join("log");
    let mut restores = 0;
    for _ in 0..4 {
        let mut process = run.start(&log);
        let before = count::committed_files(&run.output);
        let committed = || count::committed_files(&run.output) > before + 3;
        assert!(process.wait_until(committed, Duration::from_secs(60)).is_none(), "it ended early");
        process.kill();
        restores += u32::from(child::read(&log).contains("restored checkpoint"));
        fs::remove_dir_all(dir.path().join("fast")).unwrap();
    }
    let last = run.finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    restores += u32::from(last.text.contains("restored checkpoint"));
    assert!(restores >= 3, "few starts found a copy: {restores}");
    assert_same(&count::found(&run.output), &expected);
    fs::remove_dir_all(dir.path().join("fast")).unwrap();
    let again = run.finish();
    assert!(again.text.contains("finished already"), "{}", again.text);
    assert_same(&count::found(&run.output), &expected);
}

#[test]
fn a_finished_run_in_another_storage_says_so_and_keeps_its_output() {
    let (dir, inputs) = small_corpus();
    let encrypted =
        format!("custom:encrypted?directory={}&key=42", dir.path().join("blobs").display());
    for (name, uri) in [("files", file_uri(dir.path())), ("encrypted", encrypted)] {
        let mut run = Run::new(dir.path(), &inputs).with(&["--storage", &uri]);
        run.output = dir.path().join(format!("output of {name}"));
        let first = run.finish();
        assert_eq!(first.code, Some(0), "{}", first.text);
        assert_same(&count::found(&run.output), &count::expected(&inputs));
        assert!(!run.state.exists(), "{uri}: there is a store too");

        let before = contents(&run.output);
        let second = run.finish();
        assert_eq!(second.code, Some(0), "{}", second.text);
        assert!(second.text.contains("finished already"), "{}", second.text);
        assert!(before == contents(&run.output), "{uri}: something was touched");
    }
}

#[test]
fn a_store_that_is_named_as_text_is_the_one_under_state() {
    let (dir, inputs) = small_corpus();
    let state = stopped_run(&dir, &inputs).state;
    let mut run = Run::new(dir.path(), &inputs).with(&["--storage", &child::text(&state)]);
    run.state = dir.path().join("unused");
    let last = run.finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert!(last.text.contains("restored checkpoint"), "{}", last.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));

    let before = contents(&state);
    let uri = format!("sled://{}?placement=split", state.display());
    let mut again = Run::new(dir.path(), &inputs).with(&["--storage", &uri]);
    again.state = dir.path().join("unused");
    let again = again.finish();
    assert_eq!(again.code, Some(0), "{}", again.text);
    assert!(before == contents(&state), "something was touched");
}

#[test]
fn what_lies_in_memory_is_gone_with_the_process_and_a_fresh_run_starts_anew() {
    let (dir, inputs) = small_corpus();
    let run = Run::new(dir.path(), &inputs).with(&["--storage", "memory:"]);
    let first = run.finish();
    assert_eq!(first.code, Some(0), "{}", first.text);
    assert!(first.text.contains("again:") && first.text.contains("--fresh"), "{}", first.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
    assert!(!run.state.exists());

    refused(&run.finish(), 1, &child::text(&run.output));
    assert_same(&count::found(&run.output), &count::expected(&inputs));
    let second = Run::new(dir.path(), &inputs).with(&["--storage", "memory:", "--fresh"]).finish();
    assert_eq!(second.code, Some(0), "{}", second.text);
    assert!(!second.text.contains("restored checkpoint"), "{}", second.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn other_input_is_refused_in_files_as_well() {
    let (dir, inputs) = small_corpus();
    changes_are_refused(&dir, &inputs, &["--storage", &file_uri(dir.path())]);
}

#[test]
fn a_wrong_storage_is_refused_with_code_two_and_the_whole_message() {
    let (dir, inputs) = small_corpus();
    for (uri, says) in [
        ("", "is empty"),
        ("files:///dir", "the nearest is file:"),
        ("file:///", "is a root directory"),
        ("sled:///dir?placment=sled", "its only one is placement"),
        ("memory:?max_state_size=0", "a number of bytes from 1"),
        (
            "custom:unknown",
            "no storage named \"unknown\" is registered in this process; there are \
                            encrypted",
        ),
        ("custom:encrypted?directory=blobs", "key=NUMBER"),
    ] {
        let run = Run::new(dir.path(), &inputs).with(&["--storage", uri]);
        refused(&run.finish(), 2, says);
        assert!(!run.state.exists() && !run.output.exists(), "{uri}");
    }
}

#[test]
fn a_storage_beside_a_placement_or_a_store_is_refused_with_code_two() {
    let (dir, inputs) = small_corpus();
    let uri = file_uri(dir.path());
    let run = || Run::new(dir.path(), &inputs).with(&["--storage", &uri]);
    let says = "write it into the URI: sled:///DIR?placement=sled";
    refused(&run().with(&["--placement", "sled"]).finish(), 2, says);
    fs::create_dir(run().state).unwrap();
    assert_eq!(run().finish().code, Some(0), "an empty directory is none");
    fs::write(run().state.join("something"), b"").unwrap();
    refused(&run().finish(), 2, "leave one of them out");
}
