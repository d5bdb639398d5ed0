//! Bytes to text, and text in messages.

use std::borrow::Cow;

use report_api::format::Encoding;

/// Longest piece of an input that a message shows, in characters.
const SHOWN_CHARACTERS_MAX: usize = 40;

/// Decodes bytes. The error is the offset of the first byte that the encoding doesn't have.
pub(super) fn decode(bytes: &[u8], encoding: Encoding) -> Result<Cow<'_, str>, usize> {
    match encoding {
        Encoding::Utf8 => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|error| error.valid_up_to()),
        _ if bytes.is_ascii() => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|error| error.valid_up_to()),
        Encoding::Latin1 => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Encoding::Windows1252 => {
            let characters = bytes.iter().enumerate().map(|(at, byte)| windows_1252(*byte).ok_or(at));
            characters.collect::<Result<String, usize>>().map(Cow::Owned)
        }
    }
}

/// As in the mapping that unicode.org keeps for Microsoft: Latin-1, but for 0x80 to 0x9F, of which five are nothing.
fn windows_1252(byte: u8) -> Option<char> {
    const UPPER: [char; 32] = [
        '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', //
        '\0', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => Some(UPPER[usize::from(byte - 0x80)]).filter(|character| *character != '\0'),
        _ => Some(char::from(byte)),
    }
}

/// A piece of an input as a message shows it: in quotes, escaped, cut.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((at, _)) => format!("{:?}", format!("{}…", &text[..at])),
        None => format!("{text:?}"),
    }
}

/// The encoding's name in manifests.
pub(super) fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Utf8 => "utf-8",
        Encoding::Latin1 => "latin-1",
        Encoding::Windows1252 => "windows-1252",
    }
}

#[cfg(test)]
mod tests {
    use report_api::format::Encoding::{Latin1, Utf8, Windows1252};

    use super::{decode, quoted};

    #[test]
    fn bytes_are_what_their_encoding_says() {
        for (bytes, encoding, want) in [
            (&b"plain"[..], Utf8, Ok("plain")),
            ("año €".as_bytes(), Utf8, Ok("año €")),
            (b"a\xf1o", Utf8, Err(1)),
            (b"a\xf1o", Latin1, Ok("año")),
            (b"\x80", Latin1, Ok("\u{80}")),
            (b"a\xf1o \x80", Windows1252, Ok("año €")),
            (b"\x9f", Windows1252, Ok("Ÿ")),
            (b"ab\x81", Windows1252, Err(2)),
            (b"\x8d", Windows1252, Err(0)),
            (b"\x8f", Windows1252, Err(0)),
            (b"\x90", Windows1252, Err(0)),
            (b"\x9d", Windows1252, Err(0)),
        ] {
            assert_eq!(decode(bytes, encoding).as_deref(), want.as_deref(), "{bytes:?} in {encoding:?}");
        }
    }

    #[test]
    fn messages_show_at_most_forty_characters() {
        assert_eq!(quoted("12,x\t"), r#""12,x\t""#);
        assert_eq!(quoted(&"ñ".repeat(40)), format!("\"{}\"", "ñ".repeat(40)));
        assert_eq!(quoted(&"ñ".repeat(41)), format!("\"{}…\"", "ñ".repeat(40)));
    }
}
