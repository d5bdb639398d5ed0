//! Masked columns: nothing of their values is anywhere but in the input.

use crate::harness::{Ended, World, parquet_rows};

const SECRET: &str = "ana@example.org";
const KEY: &str = "a key that nobody can guess";
/// HMAC-SHA-256 by another program: of the two addresses, and of 7.
const ANA: &str = "f13ab3309dde812233aa59168eacb92e97b172dab36599de0bd69536db19f57d";
const BO: &str = "1c9c84b70d327b18b6265cea29c3d278b524e27996c03d8f1f4154ef740c58ef";
const SEVEN: &str = "33a16522f19bf5d06bc3014752ab1b9ec3d1b67d7de2418cf19723277de018a1";

const SPEC: &str = "
sources:
  - name: people
    file: {path: people.csv}
    columns:
      - {name: id, type: int64, required: true}
      - {name: email, type: string}
      - {name: number, type: int32}
      - {name: name, type: string}
      - {name: zip, type: string}
      - {name: born, type: date}
      - {name: seen, type: timestamptz}
    <bad>
    mask:
      - {column: email, method: hmac-sha256, key: {secretKeyRef: {name: pii, key: salt}}}
      - {column: number, method: hmac-sha256, key: {secretKeyRef: {name: pii, key: salt}}}
      - {column: name, method: redact}
      - {column: zip, method: truncate, length: 2}
      - {column: born, method: truncate, to: year}
      - {column: seen, method: truncate, to: month}
models:
  - {name: twice, sql: 'SELECT a.id, b.email FROM people AS a JOIN people AS b ON a.email = b.email'}
checks:
  - {name: ids, from: people, notNull: [email]}
sinks:
  - {name: table, from: people, postgres: {{db}, table: '{schema}.people'}}
  - {name: pairs, from: twice, postgres: {{db}, table: '{schema}.pairs'}}
  - {name: lake, from: people, lake: {url: 'file://{folder}/lake'}}
";

const GOOD: &str = "id,email,number,name,zip,born,seen
1,ana@example.org,7,Ana,12345,1984-05-06,2024-03-31T23:30:00-02:00
2,bo@example.org,,Bo,Ñandú,0001-12-31,9999-12-31T23:59:59Z
3,ana@example.org,7,,\"\",,
";

fn world_with_key(mut world: World) -> World {
    world.set("SECRET_PII_SALT", KEY);
    world
}

/// Neither the output nor the result shows this.
#[track_caller]
fn silent(ended: &Ended, value: &str) {
    assert!(!ended.output.contains(value), "{value:?} is in {}", ended.output);
    let result = ended.result.as_ref().map(|result| result.to_json(usize::MAX)).unwrap_or_default();
    assert!(!result.contains(value), "{value:?} is in {result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_values_are_nowhere_but_in_the_input() {
    let world = world_with_key(World::new().await);
    let manifest = world.manifest("p", &SPEC.replace("<bad>", "onBadRow: quarantine\n    maxBadRows: {ratio: 1}"));
    world.file("people.csv", format!("{GOOD}x,{SECRET},1,Ana,1,,\n9,{SECRET}\n"));
    let ended = world.run(&manifest);
    silent(&ended, SECRET);
    let result = ended.ok();
    assert_eq!((result.sources[0].rows, result.sources[0].bad_rows), (3, 2));
    let want = [
        format!("1|{ANA}|{SEVEN}|***|12|1984-01-01|2024-04-01T00:00:00+00:00"),
        format!("2|{BO}|∅|***|Ña|0001-01-01|9999-12-01T00:00:00+00:00"),
        format!("3|{ANA}|{SEVEN}|∅||∅|∅"),
    ];
    assert_eq!(world.rows("SELECT * FROM {schema}.people ORDER BY id").await, want);
    // Equal values stay equal.
    assert_eq!(world.rows("SELECT count(*) FROM {schema}.pairs").await, ["5"]);
    let lake = files(&world.folder.path().join("lake"));
    let parts: Vec<_> = lake.iter().filter(|path| path.ends_with(".parquet")).collect();
    let rows = parquet_rows(std::fs::read(parts[0]).unwrap().into());
    assert_eq!(rows[0][1], ANA);
    for path in &lake {
        let bytes = std::fs::read(path).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{path}");
    }
    let whole = "SELECT raw, reason, length(hash), column_name, line FROM report_operator.rejected WHERE identity LIKE replace('{schema}', '_', '-') || '/%' ORDER BY number";
    let rejected = world.rows(whole).await;
    assert_eq!(rejected.len(), 2);
    assert!(rejected[0].starts_with("∅|line 5, column id: the value is not int64;"), "{rejected:?}");
    assert!(rejected[0].ends_with("|64|id|5") && rejected[1].ends_with("|64|∅|6"), "{rejected:?}");
    let ledger = world
        .rows(
            "SELECT state::text FROM report_operator.ledger WHERE identity LIKE replace('{schema}', '_', '-') || '/%'",
        )
        .await;
    assert!(!ledger.concat().contains(SECRET));
    assert_eq!(std::fs::read_dir(world.folder.path().join("scratch")).unwrap().count(), 0, "scratch outlives the run");
}

fn files(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.to_str().unwrap().to_owned()),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_shows_a_value_of_a_masked_source() {
    let world = world_with_key(World::new().await);
    for (name, content, spec, code) in [
        ("a value of another column", GOOD.replace("1984-05-06", "6 May 1984"), SPEC.to_owned(), "value_invalid"),
        ("a byte", GOOD.replace("12345", "6 May 1984\u{fffd}"), SPEC.to_owned(), "encoding_invalid"),
        (
            "a cast in a model",
            GOOD.replace("12345", "6 May 1984"),
            SPEC.replace("SELECT a.id, b.email", "SELECT a.id, CAST(b.zip AS int) AS email"),
            "value_invalid",
        ),
        (
            "the document's shape",
            "\"6 May 1984\"".to_owned(),
            SPEC.replace("file: {path: people.csv}", "file: {path: people.csv}\n    format: {json: {}}"),
            "input_malformed",
        ),
    ] {
        let spec = spec.replace("length: 2", "length: 20").replace("<bad>", "onBadRow: fail");
        let manifest = world.manifest("p", &spec);
        // No character of three bytes: bytes that are not UTF-8.
        let bytes: Vec<u8> = content.split('\u{fffd}').map(str::as_bytes).collect::<Vec<_>>().join(&b"\xfc"[..]);
        world.file("people.csv", bytes);
        let ended = world.run(&manifest);
        silent(&ended, "6 May 1984");
        silent(&ended, "0xfc");
        let message = ended.failed(12, code);
        assert!(message.starts_with("spec."), "{name}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_good_key_writes_nothing() {
    let mut world = World::new().await;
    let manifest = world.manifest("p", &SPEC.replace("<bad>", ""));
    world.file("people.csv", GOOD);
    for (key, words) in [(None, "no value"), (Some("short"), "is shorter than 16 bytes")] {
        if let Some(key) = key {
            world.set("SECRET_PII_SALT", key);
        }
        let message = world.run(&manifest).failed(10, "secret_invalid");
        assert!(message.starts_with("spec.sources[0].mask[0].key: "), "{message}");
        assert!(message.contains(words) && message.contains("salt"), "{message}");
        assert_eq!(world.tables().await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn validation_knows_the_types_of_masked_columns() {
    let world = World::new().await;
    let manifest =
        world.manifest("p", &SPEC.replace("<bad>", "").replace("b.email FROM", "b.number + 1 AS email FROM"));
    let ended = world.worker(&["validate", manifest.to_str().unwrap()], &[]);
    // The number is text once it is masked; the sum of a text and a number is a cast that may fail, or is refused.
    assert!(ended.code == Some(0) || ended.output.contains("spec.models[0].sql"), "{}", ended.output);
    let good =
        world.manifest("p", &SPEC.replace("<bad>", "").replace("b.email FROM", "substr(b.number, 1, 2) AS email FROM"));
    assert_eq!(world.worker(&["validate", good.to_str().unwrap()], &[]).code, Some(0));
}
