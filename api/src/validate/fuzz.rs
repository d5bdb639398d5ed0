//! Manifests and templates with any damage: reading them ends with problems, never with a panic or without an end.

use proptest::prelude::*;

use super::validate;
use crate::manifest::Manifest;
use crate::template::{Values, render};

const GOOD: &str = include_str!("../../../examples/quickstart/pipeline.yaml");

/// The text with `length` characters from `at` on replaced.
fn damaged(text: &str, at: usize, length: usize, by: &str) -> String {
    let before = text.chars().take(at);
    let after = text.chars().skip(at + length);
    before.chain(by.chars()).chain(after).collect()
}

#[test]
fn the_undamaged_manifest_is_good() {
    let manifest: Manifest = serde_yaml::from_str(GOOD).unwrap();
    assert!(validate(&manifest.metadata.name, &manifest.spec).is_ok());
}

proptest! {
    #[test]
    fn a_manifest_with_any_damage_is_read_or_refused(
        damage in prop::collection::vec((0..GOOD.len(), 0..30_usize, "\\PC{0,12}"), 1..5)
    ) {
        let text = damage.iter().fold(GOOD.to_owned(), |text, (at, length, by)| damaged(&text, *at, *length, by));
        if let Ok(manifest) = serde_yaml::from_str::<Manifest>(&text) {
            let _ = validate(&manifest.metadata.name, &manifest.spec);
        }
    }

    #[test]
    fn any_template_ends(
        text in "(\\{\\{|\\}\\}|\\{%|%\\}|interval\\.start|run|date|for a in|endfor|if|endif|\\[1, 2\\] \\* 9999|[a-z0-9.|()'\" ]){0,40}"
    ) {
        let _ = render(&text, &Values::sample("daily"));
    }
}
