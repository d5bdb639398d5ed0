//! The ConfigMap with a resolved manifest: immutable, named by its hash, owned by the pipeline.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::{Compression, GzBuilder};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::ObjectMeta;
use report_api::contract::{LABEL_SPEC_HASH, MANIFEST_FILE};
use report_api::problem::Problem;

use super::{Resolved, labels, owned_by_pipeline};

/// A ConfigMap holds 1 MiB, and etcd takes requests of 1.5 MiB with base64's third on top: this leaves room for both.
const COMPRESSED_BYTES_MAX: usize = 900 << 10;

/// The ConfigMap.
pub fn build(resolved: &Resolved) -> ConfigMap {
    let mut labels = labels(&resolved.name);
    labels.insert(LABEL_SPEC_HASH.into(), resolved.hash.clone());
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(resolved.config_map_name()),
            namespace: Some(resolved.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![owned_by_pipeline(&resolved.name, &resolved.uid)]),
            ..Default::default()
        },
        binary_data: Some(BTreeMap::from([(MANIFEST_FILE.to_owned(), ByteString(compress(&resolved.manifest)))])),
        immutable: Some(true),
        data: None,
    }
}

/// Refuses a manifest that no ConfigMap can hold.
pub(super) fn check_size(manifest: &[u8]) -> Result<(), Problem> {
    // What is small before it is compressed need not be compressed to know.
    if manifest.len() <= COMPRESSED_BYTES_MAX {
        return Ok(());
    }
    let bytes = compress(manifest).len();
    if bytes <= COMPRESSED_BYTES_MAX {
        return Ok(());
    }
    let words = format!(
        "compressed it has {} KiB, and a ConfigMap takes {}; split the pipeline in two",
        bytes.div_ceil(1024),
        COMPRESSED_BYTES_MAX >> 10
    );
    Err(Problem::new("spec", words))
}

/// Gzip without a time or a name in its header: the same manifest gives the same bytes.
fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("a Vec takes all bytes");
    encoder.finish().expect("a Vec takes all bytes")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::fixtures;

    #[test]
    fn the_same_manifest_gives_the_same_bytes_and_reads_back() {
        let resolved = fixtures::resolved("daily");
        let bytes = compress(&resolved.manifest);
        assert_eq!(bytes, compress(&resolved.manifest));
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut back).unwrap();
        assert_eq!(back, resolved.manifest);
        let manifest: report_api::manifest::Manifest = serde_json::from_slice(&back).unwrap();
        assert_eq!(manifest.identity(None), "shop/daily");
    }

    #[test]
    fn a_manifest_that_no_config_map_holds_is_a_problem() {
        let mut seed = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        })
        .take(2 << 20)
        .collect();
        assert!(check_size(&vec![b' '; 2 << 20]).is_ok());
        let problem = check_size(&noise).unwrap_err();
        assert!(problem.message.contains("a ConfigMap takes 900; split"), "{problem}");
    }

    #[test]
    fn the_config_map() {
        let mut object = build(&fixtures::resolved("daily"));
        object.binary_data = None;
        insta::assert_snapshot!(fixtures::yaml(&object));
    }
}
