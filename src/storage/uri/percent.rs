//! Percent-encoding: bytes to the safe characters of a URI and back.

use std::fmt::Write;

/// Appends `bytes`; letters, digits, `-._~` and the characters of `also` stay as they are.
pub(super) fn encode(bytes: &[u8], also: &str, out: &mut String) {
    for &byte in bytes {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || (c.is_ascii() && also.contains(c)) {
            out.push(c);
        } else {
            // Writing to a text does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The bytes that `text` stands for; `None` when a percent sign lacks its two digits.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_first_chunk::<2>()?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let [high, low] = digits.map(digit);
        out.push(u8::try_from(high? * 16 + low?).ok()?);
        rest = after;
    }
    Some(out)
}
