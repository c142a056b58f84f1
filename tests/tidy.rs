//! Goal: what the documents promise about the tree stays true without anybody watching. Method:
//! read every source and document as text; each check lists all places that break it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a tree that cannot be read must fail the test"
)]

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{Source, library, root, tree};

/// The layers from the lowest up. A module names modules of lower layers, or of its own layer as
/// long as that leads to no round.
const LAYERS: [(&str, &[&str]); 10] = [
    ("L0", &["clock", "config", "error", "ids", "limits", "platform", "sync"]),
    ("L1", &["message", "state"]),
    ("L2a", &["record"]),
    ("L2b", &["storage"]),
    ("L3", &["chunk"]),
    ("L4", &["barrier", "catalog", "coordinator"]),
    ("L5", &["restore", "task"]),
    ("L6a", &["engine"]),
    ("L6b", &["inspect", "local", "sim"]),
    ("top", &["fuzzing"]),
];

/// The modules that decide, and what they never see though it lies lower.
const BLIND: [(&str, &[&str]); 2] = [
    ("barrier", &["chunk", "record", "storage"]),
    ("coordinator", &["chunk", "record", "storage"]),
];

/// Lines of a file, tests not counted.
const FILE_LINES_MAX: usize = 600;

/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn imports_go_down() {
    let mut wrong = Vec::new();
    for (file, module, names) in imports_of_the_library() {
        let from = layer(&module);
        for name in names.iter().filter(|name| **name != module) {
            match (from, layer(name)) {
                (Some(from), Some(to)) if to <= from => {}
                (Some(_), Some(_)) => wrong.push(format!("{file}: up to {name}")),
                (None, _) => wrong.push(format!("{file}: {module} has no layer")),
                // A name that is no module is a way round through the crate's root.
                (_, None) => wrong.push(format!("{file}: {name} is not a module with a layer")),
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn imports_within_a_layer_do_not_go_round() {
    let mut names_of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, module, names) in imports_of_the_library() {
        let beside =
            names.into_iter().filter(|name| *name != module && layer(name) == layer(&module));
        names_of.entry(module.clone()).or_default().extend(beside);
    }
    // What remains when modules without imports are taken away again and again is a round.
    while let Some(leaf) =
        names_of.iter().find(|(_, names)| names.is_empty()).map(|(m, _)| m.clone())
    {
        names_of.remove(&leaf);
        for names in names_of.values_mut() {
            names.remove(&leaf);
        }
    }
    assert!(names_of.is_empty(), "{names_of:?}");
}

#[test]
fn what_decides_sees_no_storage() {
    let mut wrong = Vec::new();
    for (file, module, names) in imports_of_the_library() {
        let unseen =
            BLIND.iter().find(|(blind, _)| *blind == module).map_or(&[][..], |(_, names)| names);
        let seen = names.iter().filter(|name| unseen.contains(&name.as_str()));
        wrong.extend(seen.map(|name| format!("{file}: {name}")));
    }
    assert_none(&wrong);
}

#[test]
fn nothing_imports_the_whole_crate() {
    let globs = imports_of_the_library().into_iter().filter(|(_, _, names)| names.contains("*"));
    assert_none(&globs.map(|(file, _, _)| file).collect::<Vec<_>>());
}

#[test]
fn the_coordinator_takes_no_lock() {
    let locks = ["Mutex", "RwLock", "Condvar", "mpsc"];
    let mut wrong = Vec::new();
    for file in library().iter().filter(|file| file.path.starts_with("src/coordinator")) {
        let production = file.production();
        let tokens = imports::tokens(&production);
        let found = locks.iter().filter(|lock| tokens.contains(lock));
        wrong.extend(found.map(|lock| format!("{}: {lock}", file.path)));
    }
    assert_none(&wrong);
}

#[test]
fn only_the_clock_reads_a_clock() {
    let mut wrong = Vec::new();
    for file in tree().iter().filter(|file| file.is_rust() && !file.path.starts_with("benches/")) {
        let code = file.code();
        let reads = imports::tokens(&code);
        let reads =
            reads.windows(3).any(|three| matches!(three, ["Instant" | "SystemTime", "::", "now"]));
        if reads && file.path != "src/clock.rs" {
            wrong.push(file.path.clone());
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_path_in_a_text_exists() {
    let mut wrong = Vec::new();
    for file in tree() {
        let paths = quoted_paths(&file.prose()).into_iter().filter(|path| !exists(path));
        wrong.extend(paths.map(|path| format!("{}: {path}", file.path)));
    }
    assert_none(&wrong);
}

#[test]
fn every_file_is_plain_ascii() {
    let mut wrong = Vec::new();
    for file in tree() {
        let lines = (1..).zip(file.text.lines()).filter(|(_, line)| !line.is_ascii());
        wrong.extend(lines.map(|(number, line)| format!("{}:{number}: {line}", file.path)));
    }
    assert_none(&wrong);
}

#[test]
fn every_source_starts_with_what_it_is_for() {
    let silent = tree().into_iter().filter(|file| file.is_rust() && !file.text.starts_with("//! "));
    assert_none(&silent.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    let mut wrong = Vec::new();
    for file in tree().iter().filter(|file| file.is_rust()) {
        let code = if file.path.starts_with("src/") {
            source::without_tests(&file.code())
        } else {
            file.code()
        };
        // What is cut out for tests leaves its line ends behind: the lines of the rest are those
        // up to the last that holds anything.
        let last = (1..).zip(code.lines()).filter(|(_, line)| !line.trim().is_empty()).last();
        let lines = last.map_or(0, |(number, _)| number);
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines", file.path));
        }
    }
    assert_none(&wrong);
}

#[test]
fn no_function_is_too_long_to_be_read_at_once() {
    let mut wrong = Vec::new();
    for file in tree().iter().filter(|file| file.is_rust()) {
        for (name, lines) in functions(&file.code()) {
            if lines > FUNCTION_LINES_MAX {
                wrong.push(format!("{}: {name} has {lines} lines", file.path));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn nothing_speaks_of_the_place_where_it_was_written() {
    // In pieces, so that this file does not speak of it either.
    let places = [concat!("/wo", "rk/"), concat!("/tmp/", "wt"), concat!("/mai", "n/src")];
    let words = [
        concat!("work", "tree"),
        concat!("hel", "per"),
        concat!("hel", "pers"),
        concat!("ses", "sion"),
        concat!("ses", "sions"),
        concat!("h", "1"),
        concat!("h", "2"),
        concat!("h", "3"),
        concat!("h", "4"),
    ];
    let mut wrong = Vec::new();
    for file in tree() {
        let found = places.iter().filter(|place| file.text.contains(**place));
        wrong.extend(found.map(|place| format!("{}: {place}", file.path)));
        for (number, line) in (1..).zip(file.prose().lines()) {
            let lower = line.to_lowercase();
            let tokens = imports::tokens(&lower);
            let found = tokens.iter().filter(|token| words.contains(token));
            wrong.extend(found.map(|word| format!("{}:{number}: {word}", file.path)));
            if names_an_issue(line) {
                wrong.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_scenario_of_flink_names_a_test_or_says_why_it_cannot_apply() {
    let files = tree();
    let document = files.iter().find(|file| file.path == "docs/flink.md").unwrap();
    let sources = files.iter().filter(|file| file.is_rust());
    let tests: BTreeSet<String> = sources.flat_map(|file| tests_in(&file.code())).collect();
    let rows = scenarios(&document.text);
    assert!(rows.len() > 100, "{} scenarios were found", rows.len());
    let mut wrong = Vec::new();
    for (flink, here) in rows {
        let named = function_names(&here);
        if named.is_empty() && !here.starts_with("does not apply: ") {
            wrong.push(format!("{flink}: no test and no reason"));
        }
        let missing = named.into_iter().filter(|name| !tests.contains(name));
        wrong.extend(missing.map(|name| format!("{flink}: there is no test {name}")));
    }
    assert_none(&wrong);
}

#[test]
fn every_promise_of_the_store_names_tests_that_are_there() {
    let files = tree();
    let document = files.iter().find(|file| file.path == "docs/promises.md").unwrap();
    let sources = files.iter().filter(|file| file.is_rust());
    let tests: BTreeSet<String> = sources.flat_map(|file| tests_in(&file.code())).collect();
    let rows: Vec<_> =
        document.text.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "{} promises were found", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let named = function_names(row);
        if named.is_empty() || !(row.contains("| Split") || row.contains("| Sled")) {
            wrong.push(format!("no test or no placement: {row}"));
        }
        wrong.extend(named.into_iter().filter(|name| !tests.contains(name)));
    }
    assert_none(&wrong);
}

/// File, module and names below the root, for each source of the library outside its tests.
fn imports_of_the_library() -> Vec<(String, String, BTreeSet<String>)> {
    let mut all = Vec::new();
    // The root only lists the modules; a binary is a crate of its own above all of them.
    let modules = library();
    let modules = modules.iter().filter(|file| file.path != "src/lib.rs");
    for file in modules.filter(|file| !file.path.starts_with("src/bin/")) {
        let path = file.path.trim_start_matches("src/").trim_end_matches(".rs");
        let module: Vec<&str> = path.trim_end_matches("/mod").split('/').collect();
        let names: BTreeSet<String> =
            imports::roots(&module, &file.production()).into_iter().collect();
        all.push((file.path.clone(), module[0].to_owned(), names));
    }
    assert!(all.iter().any(|(_, _, names)| names.contains("error")), "no import was found");
    all
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// Paths of this tree between backticks.
fn quoted_paths(text: &str) -> Vec<String> {
    let starts = ["benches/", "docs/", "examples/", "fuzz/", "src/", "tests/"];
    let mut paths = Vec::new();
    for line in text.lines() {
        let quoted = line.split('`').skip(1).step_by(2);
        let quoted = quoted.filter(|path| starts.iter().any(|start| path.starts_with(start)));
        // A command goes on behind the path, a pattern stands for the directory it is in.
        let quoted = quoted.filter_map(|path| path.split(['*', '<', '{', ':', ' ', '#']).next());
        paths.extend(quoted.map(str::to_owned));
    }
    paths
}

fn exists(path: &str) -> bool {
    let made_by_tools = ["fuzz/artifacts", "fuzz/target", "fuzz/coverage"];
    made_by_tools.iter().any(|made| path.starts_with(made)) || root().join(path).exists()
}

/// Names and lines of the functions in code.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_a_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let item = &code[at..];
        let name = imports::tokens(item).get(1).copied().unwrap_or_default();
        if starts_a_word && name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            let lines = item[..source::item_len(item)].lines().count();
            functions.push((name.to_owned(), lines));
        }
    }
    functions
}

/// The rows of the tables that compare Flink's tests with those here, without their heads.
fn scenarios(document: &str) -> Vec<(String, String)> {
    let section = document.split("\n## Flink's own tests\n").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.filter_map(|row| row.split_once(" | "));
    let rows = rows.filter(|row| *row != ("Flink", "tidegate"));
    rows.map(|(flink, here)| (flink.to_owned(), here.to_owned())).collect()
}

/// Names of functions between backticks: lower case, of several words.
fn function_names(text: &str) -> Vec<String> {
    let is_name = |name: &&str| {
        let of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        name.contains('_') && name.chars().all(of_a_name)
    };
    text.split('`').skip(1).step_by(2).filter(is_name).map(str::to_owned).collect()
}

/// Names of the tests in code, and of the promises that every storage is judged by.
fn tests_in(code: &str) -> Vec<String> {
    let promises = code.split("const PROMISES").nth(1).and_then(|rest| rest.split("];").next());
    let promises = promises.unwrap_or_default().split("),").map(|pair| {
        let pair = pair.trim_end_matches([',', ' ', '\n']);
        pair.rsplit([' ', '\n']).next()
    });
    let behind = code.split("#[test]").skip(1).filter_map(|test| test.split("fn ").nth(1));
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    let all = promises.flatten().chain(behind);
    let names = all.map(|test| test.chars().take_while(is_word).collect::<String>());
    names.filter(|name| !name.is_empty()).collect()
}

/// True for a number sign with a number behind it that starts a word.
fn names_an_issue(line: &str) -> bool {
    line.split(|c: char| c.is_whitespace() || c == '(').any(|word| {
        word.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}

fn rust(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn an_import_is_found_wherever_it_stands() {
    let found = |module: &[&str], code: &str| imports::roots(module, code).join(" ");
    assert_eq!(found(&["a"], "use crate::b::{c, d};"), "b");
    assert_eq!(found(&["a"], "use crate::{b, c::{d, e}, f};"), "b c f");
    assert_eq!(found(&["a"], "use crate::*; use crate::{*};"), "* *");
    assert_eq!(
        found(&["a"], "use {std::io, crate::b}; fn f() -> crate::c::D { crate::e() }"),
        "b c e"
    );
    assert_eq!(found(&["a", "b"], "use super::c; use super::super::d;"), "d");
    assert_eq!(found(&["a"], "mod b { use super::c; use super::super::d; } use super::e;"), "d e");
    assert_eq!(found(&["a"], "pub(crate) fn f() {} pub(super) fn g() {}"), "");
}

#[test]
fn only_code_outside_tests_counts_as_production() {
    let text = concat!(
        "//! `a` { \n",
        "fn f<'a>(x: &'a str) -> char { '\"' /* { */ }\n",
        "#[cfg(test)]\n",
        "mod tests {\n    fn g() { \"}\" }\n}\n",
        "const B: &[u8] = br#\"fn h() \"#;\n",
    );
    let file = rust("src/a.rs", text);
    let production = file.production();
    assert!(production.contains("fn f<'a>") && production.contains("const B"));
    assert!(!production.contains("fn g") && !production.contains("fn h"));
    assert_eq!(production.lines().count(), text.lines().count());
    assert_eq!(file.prose().lines().next(), Some("//! `a` { "));
    assert_eq!(functions(&file.code()), [("f".to_owned(), 1), ("g".to_owned(), 1)]);
}

#[test]
fn a_path_in_a_text_is_found_and_looked_for() {
    assert_eq!(quoted_paths("see `src/lib.rs`, `src/*` and `a/b`"), ["src/lib.rs", "src/"]);
    assert!(exists("src/lib.rs") && exists("src/") && !exists("src/nowhere.rs"));
    assert!(names_an_issue("as (#12) says") && !names_an_issue("{:#02x} #[test] # 1"));
}

#[test]
fn a_scenario_is_found_with_the_tests_that_it_names() {
    let document = concat!(
        "## A\n| a | `b_c` |\n## Flink's own tests\n\n### B\n\n| Flink | tidegate |\n|---|---|\n",
        "| `A.testB` | `a_b`, `c_d`; `E` |\n| e | does not apply: `f` |\n## C\n| a | b |\n",
    );
    let rows = scenarios(document);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(function_names(&rows[0].1), ["a_b", "c_d"]);
    assert_eq!(rows[1], ("e".to_owned(), "does not apply: `f`".to_owned()));
    assert!(function_names(&rows[1].1).is_empty());
    let code = "#[test]\nfn a_b() {}\nfn c_d() {}\n#[test]\n#[cold]\nfn e_f() {}";
    assert_eq!(tests_in(code), ["a_b", "e_f"]);
    let promises =
        "const PROMISES: [P; 2] = [(\"g_h\", g_h), (\n\"i_j\",\n i_j,\n),\n];\nfn k() { f(\"l\") }";
    assert_eq!(tests_in(promises), ["g_h", "i_j"]);
}
