//! The modules that a source names: `crate::` paths, `super::` paths that leave their module, and
//! the same within the trees of `use`.

/// Every name directly below the crate's root that the code of `module` mentions; `*` for a glob of
/// the root. `module` is the path of the file's own module.
pub(crate) fn roots(module: &[&str], code: &str) -> Vec<String> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut inline = Vec::new();
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => {
                depth += 1;
                if at >= 2 && tokens[at - 2] == "mod" {
                    inline.push(depth);
                }
            }
            "}" => {
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
                depth = depth.saturating_sub(1);
            }
            "crate" if tokens.get(at + 1) == Some(&"::") => {
                found.extend(branches(&tokens[at + 2..]));
            }
            "super" if at < 2 || tokens[at - 2] != "super" => {
                let path = &tokens[at..];
                let ups = path.chunks(2).take_while(|step| *step == ["super", "::"]).count();
                if ups > 0 && ups == module.len() + inline.len() {
                    found.extend(branches(&path[2 * ups..]));
                }
            }
            _ => {}
        }
    }
    found
}

/// The first names of a tree: `a::b` has one, `{a::b, c}` two.
fn branches(tree: &[&str]) -> Vec<String> {
    let Some((&"{", rest)) = tree.split_first() else {
        return tree.first().map(|name| (*name).to_owned()).into_iter().collect();
    };
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut before = ",";
    for token in rest {
        match *token {
            "}" if depth == 0 => break,
            "{" => depth += 1,
            "}" => depth -= 1,
            name if depth == 0 && before == "," && name != "," => found.push(name.to_owned()),
            _ => {}
        }
        before = token;
    }
    found
}

/// Words, `::` and single signs.
pub(crate) fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let len = if rest.starts_with("::") {
            2
        } else if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(len);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}
