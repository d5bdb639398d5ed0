//! Reads a text as bytes, a UUID or JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::value::Misfit;

/// Bytes as base64 with its padding, the only form that RFC 4648 has for each (section 4).
pub(super) fn binary(text: &str) -> Result<Vec<u8>, Misfit> {
    STANDARD.decode(text).map_err(|_| Misfit::Base64)
}

/// A UUID, with hyphens or without, perhaps in braces. Its characters go into `buffer`, in lower case.
pub(super) fn uuid<'b>(text: &str, buffer: &'b mut [u8; Hyphenated::LENGTH]) -> Result<&'b str, Misfit> {
    Ok(Uuid::try_parse(text).map_err(|_| Misfit::Form)?.hyphenated().encode_lower(buffer))
}

/// A JSON value of any kind, as RFC 8259 writes it.
pub(super) fn json(text: &str) -> Result<(), Misfit> {
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|_| Misfit::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_form() {
        for (text, want) in [
            ("", Ok(&b""[..])),
            ("AP8=", Ok(b"\x00\xff")),
            ("AP8", Err(Misfit::Base64)),
            ("AP9=", Err(Misfit::Base64)),
            ("_w==", Err(Misfit::Base64)),
            ("AP8=\n", Err(Misfit::Base64)),
        ] {
            assert_eq!(binary(text).as_deref(), want.as_ref().copied(), "{text:?}");
        }
    }

    #[test]
    fn uuids_take_their_usual_form() {
        let mut buffer = [0; Hyphenated::LENGTH];
        for text in [
            "6BA7B810-9dad-11d1-80b4-00c04fd430c8",
            "6ba7b8109dad11d180b400c04fd430c8",
            "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}",
        ] {
            assert_eq!(uuid(text, &mut buffer), Ok("6ba7b810-9dad-11d1-80b4-00c04fd430c8"));
        }
        for text in ["", "6ba7b810", "6ba7b810-9dad-11d1-80b4-00c04fd430cg", " 6ba7b8109dad11d180b400c04fd430c8"] {
            assert_eq!(uuid(text, &mut buffer), Err(Misfit::Form), "{text:?}");
        }
    }

    #[test]
    fn json_is_one_whole_value() {
        for text in ["null", "1e400", "\"x\"", " [1, {\"a\": \"\\u0000\"}] "] {
            assert_eq!(json(text), Ok(()), "{text}");
        }
        for text in ["", "{", "01", "NaN", "{'a': 1}", "1 2", "[1,]"] {
            assert_eq!(json(text), Err(Misfit::Form), "{text}");
        }
    }
}
