//! The program `tidegate` as a process, run to its end: what it says, and with which code it ends. Who
//! includes this says in `command` how it is started.

use std::sync::Mutex;

use serde_json::Value;

use super::command;

/// One child at a time is started: it has copies of this process's files, sled's locks with them, until
/// it executes.
pub(crate) static ONE_BY_ONE: Mutex<()> = Mutex::new(());

/// Exit code, standard output, standard error.
pub(crate) fn tidegate(arguments: &[&str]) -> (Option<i32>, String, String) {
    let turn = ONE_BY_ONE.lock().unwrap();
    let output = command(arguments).output().unwrap();
    drop(turn);
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), out, err)
}

#[track_caller]
pub(crate) fn says(arguments: &[&str]) -> String {
    let (code, out, err) = tidegate(arguments);
    assert!(code == Some(0) && err.is_empty(), "{arguments:?}: {code:?} {out} {err}");
    out
}

#[track_caller]
pub(crate) fn says_json(arguments: &[&str]) -> Value {
    serde_json::from_str(&says(&[arguments, &["--json"]].concat())).unwrap()
}

#[track_caller]
pub(crate) fn refused(arguments: &[&str], code: i32, why: &str) {
    let (found, out, err) = tidegate(arguments);
    assert!(found == Some(code) && out.is_empty(), "{arguments:?}: {found:?} {out} {err}");
    assert!(err.contains(why), "{arguments:?}: {err}");
}
