//! Inputs whose columns change between runs, in each contract mode, and inputs that nobody has described.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray};

use crate::harness::World;

fn spec(file: &str, rest: &str) -> String {
    format!(
        "
sources:
  - {{name: orders, file: {{path: {file}}}, {rest}}}
sinks:
  - {{name: lake, from: orders, lake: {{url: '{{lake}}/orders'}}}}
"
    )
}

const DECLARED: &str = "columns: [{name: id, type: int64, required: true}, {name: city, type: string}]";

/// The rows and changes of a good run, or the words of a failed one.
type Want<'a> = Result<(&'a [&'a str], &'a [&'a str]), &'a str>;

/// Runs over one input after another. Each either leaves these rows and changes, or fails with these words.
async fn runs(world: &World, file: &str, rest: &str, inputs: &[(&[u8], Want<'_>)]) {
    let manifest = world.manifest("p", &spec(file, rest));
    let mut before = None;
    for (at, (input, want)) in inputs.iter().enumerate() {
        world.file(file, input);
        let ended = world.run(&manifest);
        match want {
            Ok((rows, changes)) => {
                let result = ended.ok();
                assert_eq!(world.lake_rows("orders").await, *rows, "{rest}, run {at}");
                assert_eq!(result.sources[0].changes, *changes, "{rest}, run {at}");
                before = Some(world.lake_rows("orders").await);
            }
            Err(words) => {
                let message = ended.failed(12, "columns_changed");
                let whole = format!(
                    "spec.sources[0].contract: the input's columns are not those of the last good run: {words}; "
                );
                assert!(message.starts_with(&whole), "{rest}, run {at}: {message}");
                if let Some(before) = &before {
                    assert_eq!(&world.lake_rows("orders").await, before, "{rest}, run {at}");
                }
            }
        }
    }
}

const FIRST: &[u8] = b"id,city,unread\n1,Oslo,x\n";
const MORE: &[u8] = b"id,city,unread,note,Tag Name\n1,Oslo,x,hi,t\n";
const LESS: &[u8] = b"id,unread\n1,x\n";

#[tokio::test(flavor = "multi_thread")]
async fn freeze_names_what_is_new_and_what_is_gone() {
    let world = World::new().await;
    let frozen = [
        (FIRST, Ok((&["1|Oslo"][..], &[][..]))),
        (MORE, Err("+ note, + \"Tag Name\"")),
        (LESS, Err("- city")),
        // A failed run is not remembered.
        (MORE, Err("+ note, + \"Tag Name\"")),
        (FIRST, Ok((&["1|Oslo"], &[]))),
    ];
    runs(&world, "a.csv", DECLARED, &frozen).await;
    // What the manifest declares is no surprise.
    let declared = "columns: [{name: id, type: int64}, {name: city, type: string}, {name: note, type: string}, {name: tag_name, type: string}]";
    runs(&world, "a.csv", declared, &[(MORE, Ok((&["1|Oslo|hi|t"], &[])))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discard_leaves_new_columns_out_and_says_so_once() {
    let world = World::new().await;
    let inputs = [
        (FIRST, Ok((&["1|Oslo"][..], &[][..]))),
        (MORE, Ok((&["1|Oslo"], &["+ note (left out)", "+ \"Tag Name\" (left out)"]))),
        (MORE, Ok((&["1|Oslo"], &[]))),
        (LESS, Err("- city")),
    ];
    runs(&world, "a.csv", &format!("{DECLARED}, contract: discard"), &inputs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evolve_lets_columns_in_and_keeps_them() {
    let world = World::new().await;
    let inputs = [
        (FIRST, Ok((&["1|Oslo|x"][..], &[][..]))),
        (MORE, Ok((&["1|Oslo|x|hi|t"], &["+ note string", "+ tag_name string"]))),
        (LESS, Ok((&["1|∅|x|∅|∅"], &["- city", "- note", "- tag_name"]))),
        (MORE, Ok((&["1|Oslo|x|hi|t"], &[]))),
    ];
    runs(&world, "a.csv", &format!("{DECLARED}, contract: evolve"), &inputs).await;
    let inputs: [(&[u8], _); 3] = [
        (b"{\"id\": 1, \"city\": \"Oslo\"}\n", Ok((&["1|Oslo"][..], &[][..]))),
        (b"{\"id\": 1}\n{\"id\": 2, \"New One\": 7}\n", Ok((&["1|∅|∅", "2|∅|7"], &["- city", "+ new_one string"]))),
        (b"{\"id\": 1, \"city\": \"Oslo\"}\n", Ok((&["1|Oslo|∅"], &["- new_one"]))),
    ];
    runs(&world, "a.ndjson", &format!("{DECLARED}, contract: evolve"), &inputs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_objects_are_frozen_too() {
    let world = World::new().await;
    for file in ["a.ndjson", "a.json"] {
        let text = |rows: &[&str]| match file {
            "a.json" => format!("[{}]", rows.join(",")).into_bytes(),
            _ => rows.join("\n").into_bytes(),
        };
        let first = text(&[r#"{"id": 1, "city": "Oslo", "other": 1}"#]);
        // A key that is not in these rows is not gone.
        let fewer = text(&[r#"{"id": 1}"#]);
        let more = text(&[r#"{"id": 1, "city": "Oslo"}"#, r#"{"id": 2, "note": "x", "other": 1}"#]);
        let inputs = [
            (&first[..], Ok((&["1|Oslo"][..], &[][..]))),
            (&fewer, Ok((&["1|∅"], &[]))),
            (&more, Err("+ note")),
            (&first, Ok((&["1|Oslo"], &[]))),
        ];
        runs(&world, file, DECLARED, &inputs).await;
    }
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_types_widen_and_never_narrow() {
    let world = World::new().await;
    let narrow = parquet(vec![("n", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]);
    let wide = parquet(vec![("n", Arc::new(Int64Array::from(vec![1_i64 << 40])) as ArrayRef)]);
    let decimal = Decimal128Array::from(vec![150]).with_precision_and_scale(21, 2).unwrap();
    let decimal = parquet(vec![("n", Arc::new(decimal) as ArrayRef)]);
    let text = parquet(vec![("n", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]);
    let two = parquet(vec![
        ("n", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
        ("New", Arc::new(Int32Array::from(vec![2])) as ArrayRef),
    ]);
    let evolving = [
        (&narrow[..], Ok((&["1"][..], &[][..]))),
        (&wide, Ok((&["1099511627776"], &["~ n int32 -> int64"]))),
        (&narrow, Ok((&["1"], &[]))),
        (&decimal, Ok((&["1.50"], &["~ n int64 -> decimal(21,2)"]))),
        (&narrow, Ok((&["1.00"], &[]))),
        (&text, Err("~ n decimal(21,2) -> string")),
        (&two, Ok((&["1.00|2"], &["+ new int32"]))),
    ];
    runs(&world, "a.parquet", "contract: evolve", &evolving).await;
    let frozen = [
        (&narrow[..], Ok((&["1"][..], &[][..]))),
        (&wide, Err("~ n int32 -> int64")),
        (&two, Err("+ New")),
        (&narrow, Ok((&["1"], &[]))),
    ];
    runs(&world, "a.parquet", "contract: freeze", &frozen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_nobody_declares_are_guessed_once_and_kept() {
    let world = World::new().await;
    let csv = b"Order ID,zip,amount,day,flag,big,empty,mixed\n1,01234,1.5,2024-02-29,true,1234567890123456789,,1\n-2,99999,10,2024-03-01,false,1,,x\n";
    let rows = ["-2|99999|10.0|2024-03-01|false|1|∅|x", "1|01234|1.5|2024-02-29|true|1234567890123456789|∅|1"];
    // The second input would have given other types.
    let second = b"Order ID,zip,amount,day,flag,big,empty,mixed\n3,1,2,2024-01-01,true,2,7,2\n";
    let inputs: [(&[u8], _); 2] =
        [(csv, Ok((&rows[..], &[][..]))), (second, Ok((&["3|1|2.0|2024-01-01|true|2|7|2"], &[])))];
    runs(&world, "a.csv", "contract: freeze", &inputs).await;
    world.file("a.csv", b"Order ID,zip,amount,day,flag,big,empty,mixed\nx,1,2,2024-01-01,true,2,7,2\n");
    let manifest = world.manifest("p", &spec("a.csv", "contract: freeze"));
    let message = world.run(&manifest).failed(12, "value_invalid");
    assert!(message.contains("line 2, column order_id: \"x\" is not int64"), "{message}");

    let json = br#"[{"id": 1, "code": "007", "v": 1.25, "ok": true, "o": {"a": 1}}, {"id": 2, "v": 3, "more": null}]"#;
    let want: &[&str] = &["1|007|1.25|true|{\"a\": 1}|∅", "2|∅|3.00|∅|∅|∅"];
    runs(&world, "a.json", "contract: freeze", &[(json, Ok((want, &[])))]).await;
}
