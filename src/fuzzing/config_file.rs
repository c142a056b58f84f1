//! Arbitrary text as a configuration file of Flink's, as lines of keys, and as a value of every key.
//!
//! No text panics, the same text gives the same answer, what is refused has changed nothing, and what
//! is accepted is the same when it is built again from its keys or from its serialised form.

use crate::config::{CheckpointConfig, FileReport, KEYS};
use crate::error::ErrorKind;
use crate::inspect::check_config;
use crate::record::codec;

/// How many lines are taken as keys.
const LINES_MAX: usize = 64;

/// Reads `data` as configuration in every way that there is. Panics when a promise above is broken.
pub fn config_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    file(&text);
    lines(&text);
    value(text.lines().next().unwrap_or_default());
}

fn file(text: &str) {
    let report = check_config(text);
    match (CheckpointConfig::from_flink_yaml(text), CheckpointConfig::from_flink_yaml(text)) {
        (Ok((config, report)), Ok(again)) => {
            same_from_keys(&config, &report);
            same_when_built_again(&config);
            assert!((config, report) == again, "another configuration the second time");
        }
        (Err(error), Err(again)) => {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert_eq!(error.to_string(), again.to_string());
            assert!(report.is_err(), "a file that is refused has a report");
        }
        (first, again) => assert!(first.is_ok() == again.is_ok(), "accepted once, refused once"),
    }
    if let Ok(report) = report {
        assert!(report.options.len() == KEYS.len() && !report.to_string().is_empty());
    }
}

/// Each line that looks like one key with its value, one after the other.
fn lines(text: &str) {
    let mut config = CheckpointConfig::new();
    let pairs = text.lines().take(LINES_MAX).filter_map(|line| line.split_once(':'));
    for (key, value) in pairs {
        apply(&mut config, key.trim(), value.trim());
    }
    same_when_built_again(&config);
}

fn value(text: &str) {
    for key in KEYS {
        let mut config = CheckpointConfig::new();
        apply(&mut config, &key.full(), text);
        same_when_built_again(&config);
    }
}

fn apply(config: &mut CheckpointConfig, key: &str, value: &str) {
    let before = config.clone();
    if let Err(error) = config.apply_flink_key(key, value) {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(*config == before, "{key} was refused and has changed something");
    }
}

/// The keys of a report, one by one and under the names that they had, come to the same.
fn same_from_keys(config: &CheckpointConfig, report: &FileReport) {
    let mut again = CheckpointConfig::new();
    for set in report.values() {
        let applied = again.apply_flink_key(&set.key, &set.value).is_ok();
        assert!(applied, "{}: taken from the file alone", set.key);
    }
    assert!(again == *config, "the keys come to something else than the file");
}

fn same_when_built_again(config: &CheckpointConfig) {
    let mut form = Vec::new();
    let encoded = codec::encode_into(config, &mut form);
    assert!(encoded.is_ok(), "{config:?} has no serialised form");
    let again = codec::decode::<CheckpointConfig>(&form);
    assert!(again.as_ref().ok() == Some(config), "{config:?} became {again:?}");
    let built = |config: &CheckpointConfig| config.build().map_err(|error| error.to_string());
    assert!(again.is_ok_and(|again| built(&again) == built(config)), "{config:?}");
}

#[cfg(test)]
mod tests {
    //! Goal: every way in is reached, and the committed corpus is harmless. Method: texts by hand.

    use super::*;
    use crate::fuzzing::corpus;

    const NESTED: &str = "\
execution:
  checkpointing:
    interval: 10 s
    mode: AT_LEAST_ONCE
    unaligned: {enabled: true, forced: false}
    tolerable-failed-checkpoints: 3
    data-inline-threshold: 20 kb
state:
  checkpoints: {dir: 'file:///a//b/', num-retained: 2}
";
    const FLAT: &str = "\
execution.checkpointing.timeout: 2 min
execution.checkpointing.min-pause: 500ms
execution.checkpointing.storage: jobmanager
execution.checkpointing.externalized-checkpoint-retention: RETAIN_ON_CANCELLATION
";
    const OLDER_NAMES: &str = "\
state.backend.fs.checkpointdir: hdfs://host:8020/x
state.checkpoint-storage: filesystem
execution.checkpointing.alignment-timeout: 1 h
execution.checkpointing.aligned-checkpoint-timeout: 1 d
state.backend.incremental: FALSE
";

    #[test]
    fn the_corpus_is_harmless() {
        let seeds = [
            ("nested_yaml", NESTED),
            ("flat_keys", FLAT),
            ("older_names", OLDER_NAMES),
            ("time_without_end", "99999999999999999 d"),
            ("time_in_nanoseconds", " 1500000 NS"),
            ("size_in_kibibytes", "4 kibibytes"),
            ("size_beyond_two_gb", "2 gb"),
            ("alias", "a: &x 10 s\nexecution.checkpointing.interval: *x\n"),
            ("two_documents", "a: 1\n---\nexecution.checkpointing.interval: 1 s\n"),
            ("deep_list", "execution: [[[[[[[[{checkpointing: 1}]]]]]]]]\n"),
            ("key_twice", "execution.checkpointing: {dir: /a, dir: /b}\n"),
            ("typo", "execution.checkpointing.intervall: 1 s\n"),
        ];
        let seeds = seeds.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        corpus::check("config_file", &seeds.into(), config_file);
        for (text, values) in [(NESTED, 8), (FLAT, 4), (OLDER_NAMES, 4)] {
            let (_, report) = CheckpointConfig::from_flink_yaml(text).unwrap();
            assert_eq!(report.values().len(), values, "{report:?}");
        }
    }

    #[test]
    fn no_cut_of_a_text_and_no_byte_put_into_it_does_harm() {
        for text in [NESTED, FLAT, OLDER_NAMES] {
            for at in 0..text.len() {
                config_file(&text.as_bytes()[..at]);
                for byte in [b'\0', b'\n', b'\t', b'{', b'*', b'9', 0xff] {
                    let mut wrong = text.as_bytes().to_vec();
                    wrong[at] = byte;
                    config_file(&wrong);
                }
            }
        }
    }
}
