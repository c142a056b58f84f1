//! Goal: the entries of a keyed state are shown where anybody can read them, and it is said clearly where
//! nobody but the program can. Method: a job counts words with two codecs, in two subtasks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate::config::CheckpointConfig;
use tidegate::local::{Flow, Job, JobEnd, Next, Output, Source};
use tidegate::state::{Json, StateDescriptor};
use tidegate::storage::SledCheckpointStorage;

use super::{refused, says, tidegate};

const WORDS: [&str; 7] = ["one", "two", "three", "two", "three", "a \"quoted\"\nword", "three"];

struct Words(usize);

impl Source for Words {
    type Item = String;
    type Position = usize;

    fn position(&self) -> usize {
        self.0
    }

    fn seek(&mut self, at: usize) -> tidegate::Result<()> {
        self.0 = at;
        Ok(())
    }

    fn next(&mut self) -> tidegate::Result<Next<String>> {
        let Some(word) = WORDS.get(self.0) else { return Ok(Next::End) };
        self.0 += 1;
        Ok(Next::Item((*word).to_owned()))
    }
}

/// A store with the last checkpoint of a job; the path of it.
fn store(dir: &Path) -> String {
    let flow = Flow::new();
    let words = flow.source("words", vec![Words(0)]).unwrap();
    words
        .key_by(Clone::clone)
        .process("count", 2, |scope| {
            let shown = scope.keyed_map(StateDescriptor::with_codec("shown", Json))?;
            let hidden = scope.keyed_map::<String, u64>("hidden")?;
            Ok(move |word: String, _: &mut Output<()>| {
                shown.update(&word, |count: &mut u64| *count += 1)?;
                hidden.update(&word, |count| *count += 1)
            })
        })
        .unwrap();
    let config = CheckpointConfig::new().build().unwrap();
    let storage = Arc::new(SledCheckpointStorage::new(dir));
    let job = Job::builder("wordy", flow, config, storage).build().unwrap();
    assert!(matches!(job.run().unwrap(), JobEnd::Finished(_)));
    dir.to_str().unwrap().to_owned()
}

/// What is counted, and how often.
fn counts() -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in WORDS {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    counts
}

fn counted(entries: &[Value]) -> BTreeMap<String, u64> {
    let count = |entry: &Value| {
        assert!(entry["subtask"].as_u64().unwrap() < 2, "{entry}");
        (entry["key"].as_str().unwrap().to_owned(), entry["value"].as_u64().unwrap())
    };
    entries.iter().map(count).collect()
}

#[test]
fn a_state_with_the_json_codec_shows_an_entry_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path());
    let text = says(&["show", &path, "--state", "count/shown"]);
    let entries: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((entries.len(), counted(&entries)), (counts().len(), counts()), "{text}");

    let text = says(&["show", &path, "--state", "count/shown", "--json"]);
    let whole: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(counted(whole["entries"].as_array().unwrap()), counts());
    for (field, value) in [
        ("operator", json!("count")),
        ("state", json!("shown")),
        ("codec", json!("json")),
        ("schema_version", json!(1)),
        ("readable", json!(true)),
        ("count", json!(counts().len())),
    ] {
        assert_eq!(whole[field], value, "{field}: {whole}");
    }
    let id = whole["checkpoint"].as_u64().unwrap().to_string();
    assert_eq!(says(&["show", &path, &id, "--state", "count/shown", "--json"]), text);
}

#[test]
fn a_state_that_only_the_program_can_read_is_described_with_exit_code_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path());
    let answer = tidegate(&["show", &path, "--state", "count/hidden"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(1), ""), "{answer:?}");
    for said in ["state hidden of count: 4 entries", "bincode", "only the program that wrote it"] {
        assert!(answer.out.contains(said), "{said}: {}", answer.out);
    }

    let answer = tidegate(&["show", &path, "--state", "count/hidden", "--json"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(1), ""), "{answer:?}");
    let whole: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((&whole["entries"], &whole["readable"]), (&json!([]), &json!(false)), "{whole}");
    assert_eq!(whole["count"], json!(counts().len()), "{whole}");
}

#[test]
fn a_name_that_is_not_there_is_bad_input_and_the_answer_names_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path());
    let why = "count has no keyed state \"word\"; it has hidden, shown";
    for json in [&[][..], &["--json"]] {
        let show = |state| [&["show", &path, "--state", state], json].concat();
        refused(&show("count/word"), 2, why);
        refused(&show("count/"), 2, "it has hidden, shown");
        refused(&show("nobody/shown"), 2, "no operator nobody; it has count, words");
        refused(&show("words/shown"), 2, "it has none");
        refused(&show("shown"), 2, "write UID/NAME");
    }
    refused(&["show", &path, "99", "--state", "count/shown"], 2, "no completed checkpoint 99");
}
