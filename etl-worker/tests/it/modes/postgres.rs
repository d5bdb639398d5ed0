//! What is special about tables in PostgreSQL: what depends on them, and what people set on them.

use report_api::result::State;

use super::{csv, day, spec};
use crate::harness::World;

const TABLE: &str = "postgres: {{db}, table: '{schema}.orders'}";
const ALL: &str = "SELECT * FROM {schema}.orders ORDER BY id, city";
const NAMES: &str = "SELECT indexname FROM pg_indexes WHERE schemaname = '{schema}' ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_created_has_the_primary_key_and_comments_of_the_manifest() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, primaryKey: [id]")));
    day(&world, &manifest, 1, &["1,Oslo,1.50"]).ok();
    assert_eq!(world.rows(NAMES).await, ["orders_pkey"]);
    assert_eq!(world.rows("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{schema}.orders'::regclass AND contype = 'p'").await, ["orders_pkey|PRIMARY KEY (id)"]);
    assert_eq!(world.rows("SELECT col_description('{schema}.orders'::regclass, 1)").await, ["The order"]);
    // The next run swaps the table, and the one after it: the names stay.
    for n in 2..4 {
        day(&world, &manifest, n, &["2,Oslo,1.50"]).ok();
        assert_eq!(world.rows(NAMES).await, ["orders_pkey"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_key_whose_usual_name_is_taken_gets_another_one() {
    let world = World::new().await;
    world.sql("CREATE TABLE {schema}.other (x int); CREATE INDEX orders_pkey ON {schema}.other (x)").await;
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, primaryKey: [id]")));
    for n in 1..3 {
        day(&world, &manifest, n, &["1,Oslo,1.50"]).ok();
        assert_eq!(
            world
                .rows(
                    "SELECT count(*) FROM pg_constraint WHERE conrelid = '{schema}.orders'::regclass AND contype = 'p'"
                )
                .await,
            ["1"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_by_swap_keeps_indexes_rights_comments_and_constraints() {
    let world = World::new().await;
    world
        .sql(
            "CREATE TABLE {schema}.orders (id bigint NOT NULL, city text DEFAULT 'Rom', amount numeric(10,2) CHECK (amount >= 0),
               CONSTRAINT the_key PRIMARY KEY (id));
             CREATE INDEX by_city ON {schema}.orders USING btree (lower(city)) WHERE amount > 0;
             CREATE UNIQUE INDEX \"Strange \"\"name\" ON {schema}.orders (city DESC, id);
             COMMENT ON TABLE {schema}.orders IS 'It''s ours'; COMMENT ON COLUMN {schema}.orders.city IS 'Where';
             GRANT SELECT ON {schema}.orders TO reader; GRANT INSERT ON {schema}.orders TO PUBLIC",
        )
        .await;
    const LOOK: &str = "SELECT 'index', indexname::text, indexdef FROM pg_indexes WHERE schemaname = '{schema}'
        UNION ALL SELECT 'constraint', conname::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{schema}.orders'::regclass
        UNION ALL SELECT 'right', grantee::text, privilege_type::text FROM information_schema.role_table_grants WHERE table_schema = '{schema}'
        UNION ALL SELECT 'comment', obj_description('{schema}.orders'::regclass), col_description('{schema}.orders'::regclass, 2)
        UNION ALL SELECT 'default', column_name::text, column_default::text FROM information_schema.columns WHERE table_schema = '{schema}'
        ORDER BY 1, 2, 3";
    const OID: &str = "SELECT '{schema}.orders'::regclass::oid";
    let (before, oid) = (world.rows(LOOK).await, world.rows(OID).await);
    let manifest = world.manifest("p", &spec(TABLE));
    for n in 1..4 {
        day(&world, &manifest, n, &["1,Oslo,1.50", "2,Bern,3"]).ok();
        assert_eq!(world.rows(LOOK).await, before);
        assert_eq!(world.rows(ALL).await, ["1|Oslo|1.50", "2|Bern|3.00"]);
    }
    assert_ne!(world.rows(OID).await, oid, "the table was not swapped");
    assert_eq!(world.tables().await, ["orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_a_table_survives_its_replacement() {
    let create = "CREATE TABLE {schema}.orders (id bigint PRIMARY KEY, city text, amount numeric(10,2));";
    for (what, setup, look, want) in [
        ("a view", "CREATE VIEW {schema}.v AS SELECT sum(amount) AS total FROM {schema}.orders", "SELECT * FROM {schema}.v", "4.50"),
        ("a materialized view", "CREATE MATERIALIZED VIEW {schema}.v AS SELECT id FROM {schema}.orders", "SELECT count(*) FROM {schema}.v", "0"),
        (
            "a foreign key of another table",
            "CREATE TABLE {schema}.lines (id bigint REFERENCES {schema}.orders)",
            "SELECT count(*) FROM pg_constraint WHERE confrelid = '{schema}.orders'::regclass",
            "1",
        ),
        (
            "a foreign key of its own",
            "CREATE TABLE {schema}.cities (city text PRIMARY KEY); INSERT INTO {schema}.cities VALUES ('Oslo'), ('Bern');
             ALTER TABLE {schema}.orders ADD FOREIGN KEY (city) REFERENCES {schema}.cities",
            "SELECT count(*) FROM pg_constraint WHERE conrelid = '{schema}.orders'::regclass AND contype = 'f'",
            "1",
        ),
        ("a publication", "CREATE PUBLICATION {schema} FOR TABLE {schema}.orders", "SELECT count(*) FROM pg_publication_tables WHERE pubname = '{schema}'", "1"),
        (
            "a trigger",
            "CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER note BEFORE INSERT ON {schema}.orders FOR EACH ROW EXECUTE FUNCTION {schema}.note()",
            "SELECT count(*) FROM pg_trigger WHERE tgrelid = '{schema}.orders'::regclass AND NOT tgisinternal",
            "1",
        ),
        ("a policy", "ALTER TABLE {schema}.orders ENABLE ROW LEVEL SECURITY", "SELECT relrowsecurity FROM pg_class WHERE oid = '{schema}.orders'::regclass", "true"),
        ("a wider column", "ALTER TABLE {schema}.orders ALTER amount TYPE numeric", "SELECT amount FROM {schema}.orders WHERE id = 1", "1.50"),
        ("a column more", "ALTER TABLE {schema}.orders ADD loaded int DEFAULT 7", "SELECT loaded FROM {schema}.orders WHERE id = 1", "7"),
    ] {
        let world = World::new().await;
        world.sql(&format!("{create}{setup}")).await;
        let manifest = world.manifest("p", &spec(TABLE));
        day(&world, &manifest, 1, &["7,Oslo,9"]).ok();
        day(&world, &manifest, 2, &["1,Oslo,1.50", "2,Bern,3"]).ok();
        assert_eq!(world.rows(look).await, [want], "{what}");
        assert_eq!(world.rows("SELECT id, city, amount FROM {schema}.orders ORDER BY id").await, ["1|Oslo|1.50", "2|Bern|3.00"], "{what}");
        world.sql("DROP PUBLICATION IF EXISTS {schema}").await;
    }
}

/// Deleting all rows to put most of them back would take the lines along.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_other_tables_refer_to_are_replaced_one_by_one() {
    for action in ["", "ON DELETE CASCADE", "ON DELETE SET NULL"] {
        let world = World::new().await;
        world
            .sql(&format!(
                "CREATE TABLE {{schema}}.orders (id bigint PRIMARY KEY, city text, amount numeric(10,2));
                 CREATE TABLE {{schema}}.lines (line int, id bigint REFERENCES {{schema}}.orders {action})"
            ))
            .await;
        let manifest = world.manifest("p", &spec(TABLE));
        day(&world, &manifest, 1, &["1,Oslo,1", "2,Bern,2", "3,Rom,3"]).ok();
        world.sql("INSERT INTO {schema}.lines VALUES (1, 1), (2, 2)").await;
        day(&world, &manifest, 2, &["1,Oslo,10", "2,Bern,20", "4,Wien,4"]).ok();
        let orders = "SELECT id, amount FROM {schema}.orders ORDER BY id";
        assert_eq!(world.rows(orders).await, ["1|10.00", "2|20.00", "4|4.00"], "{action}");
        assert_eq!(world.rows("SELECT * FROM {schema}.lines ORDER BY line").await, ["1|1", "2|2"], "{action}");
    }
    let world = World::new().await;
    world
        .sql(
            "CREATE TABLE {schema}.orders (id bigint, city text, amount numeric(10,2), number serial UNIQUE);
             CREATE TABLE {schema}.lines (id int REFERENCES {schema}.orders (number))",
        )
        .await;
    let manifest = world.manifest("p", &spec(TABLE));
    let message = day(&world, &manifest, 1, &["1,Oslo,1"]).failed(12, "schema_mismatch");
    assert!(message.contains("foreign keys refer to"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_after_the_rows_were_staged_survives_the_commit() {
    let world = World::new().await;
    let manifest = world.manifest(
        "p",
        &spec(TABLE)
            .replace("sinks:", "sinks:\n  - {name: first, from: orders, postgres: {{db}, table: '{schema}.first'}}"),
    );
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    // Both are staged for a swap and one is committed; then somebody makes a view on the other.
    world.file("orders.csv", csv(&["2,Bern,2"]));
    let dead = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[("REPORT_CRASH_AT", "after_commit_0")]);
    assert_eq!(dead.code, None, "{}", dead.output);
    world.sql("CREATE VIEW {schema}.v AS SELECT id FROM {schema}.orders").await;
    world.sql("CREATE INDEX added ON {schema}.orders (city)").await;
    world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
    assert_eq!(world.rows("SELECT id FROM {schema}.v").await, ["2"]);
    assert!(world.rows(NAMES).await.contains(&"added".to_owned()));

    // The same with an index alone, which nothing but a look would tell.
    world.sql("DROP VIEW {schema}.v").await;
    world.file("orders.csv", csv(&["3,Rom,3"]));
    let dead = world.attempt(&manifest, "run-3", "2026-01-03T00:00:00Z", &[("REPORT_CRASH_AT", "after_commit_0")]);
    assert_eq!(dead.code, None, "{}", dead.output);
    world.sql("CREATE INDEX later ON {schema}.orders (id)").await;
    world.attempt(&manifest, "run-3", "2026-01-03T00:00:00Z", &[]).ok();
    assert_eq!(world.rows("SELECT id FROM {schema}.orders").await, ["3"]);
    assert!(world.rows(NAMES).await.contains(&"later".to_owned()));
    assert_eq!(world.rows("SELECT id FROM {schema}.first").await, ["3"]);
    assert_eq!(world.tables().await, ["first", "orders"]);
}

/// Tables made by somebody else: each is refused with what to do about it, and stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_is_refused_by_column() {
    for (table, mode, exit, code, words) in [
        (
            "id bigint, city text, amount numeric(10,2)",
            "merge: {key: [id]}",
            12,
            "schema_mismatch",
            "CREATE UNIQUE INDEX ON",
        ),
        ("id bigint, city text", "replace: {}", 12, "schema_mismatch", "has no column amount; ALTER TABLE"),
        (
            "id bigint, city text, amount numeric(10,2), booked date NOT NULL",
            "replace: {}",
            12,
            "schema_mismatch",
            "booked of",
        ),
        ("id int, city text, amount numeric(10,2)", "replace: {}", 12, "schema_mismatch", "id is integer in"),
        ("id bigint, city date, amount numeric(10,2)", "append: {}", 12, "schema_mismatch", "city is date in"),
        (
            "id bigint GENERATED ALWAYS AS IDENTITY, city text, amount numeric(10,2)",
            "append: {}",
            12,
            "schema_mismatch",
            "id is generated in",
        ),
        ("id bigint, city varchar(3), amount numeric(10,2)", "replace: {}", 12, "value_invalid", "too long"),
        (
            "id bigint, city text, amount numeric(10,2) CHECK (amount > 5)",
            "replace: {}",
            12,
            "value_invalid",
            "check constraint",
        ),
        (
            "id bigint, city text CHECK (city <> 'Oslo'), amount numeric(12,2)",
            "replace: {}",
            12,
            "value_invalid",
            "check constraint",
        ),
        (
            "id bigint, city text NOT NULL, amount numeric(10,2)",
            "append: {}",
            12,
            "value_invalid",
            "fill the column in the model",
        ),
    ] {
        let world = World::new().await;
        world.sql(&format!("CREATE TABLE {{schema}}.orders ({table}); CREATE TABLE {{schema}}.before AS SELECT * FROM {{schema}}.orders")).await;
        let manifest = world.manifest("p", &spec(&format!("{TABLE}, mode: {{{mode}}}")));
        let message = day(&world, &manifest, 1, &["1,Oslo,1", "1,,2"]).failed(exit, code);
        assert!(message.starts_with("spec.sinks[0]") && message.contains(words), "{table}: {message}");
        assert_eq!(world.rows("SELECT count(*) FROM {schema}.orders").await, ["0"], "{table}");
        assert_eq!(world.tables().await, ["before", "orders"], "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_column_takes_the_rows_and_keeps_its_type() {
    let world = World::new().await;
    world.sql("CREATE TABLE {schema}.orders (id numeric(30,0), city varchar(10), amount numeric(20,4))").await;
    let manifest = world.manifest("p", &spec(TABLE));
    day(&world, &manifest, 1, &["1,Oslo,1.5"]).ok();
    day(&world, &manifest, 2, &["2,Bern,2.5"]).ok();
    assert_eq!(world.rows(ALL).await, ["2|Bern|2.5000"]);
    assert_eq!(world.rows("SELECT data_type FROM information_schema.columns WHERE table_schema = '{schema}' ORDER BY ordinal_position").await, ["numeric", "character varying", "numeric"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_of_one_name_in_two_namespaces_share_a_database() {
    let (one, two) = (World::new().await, World::new().await);
    let spec = spec(&format!("{TABLE}, mode: {{append: {{}}}}"));
    for (world, rows) in [(&one, ["1,Oslo,1"]), (&two, ["2,Bern,2"])] {
        let manifest = world.manifest("same", &spec);
        day(world, &manifest, 1, &rows).ok();
        assert_eq!(day(world, &manifest, 1, &rows).ok().state, State::Succeeded);
    }
    assert_eq!(one.rows(ALL).await, ["1|Oslo|1.00"]);
    assert_eq!(two.rows(ALL).await, ["2|Bern|2.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_deleted_and_applied_again_goes_on_where_it_was() {
    let world = World::new().await;
    let spec = spec(&format!("{TABLE}, mode: {{append: {{}}}}"));
    let manifest = world.manifest("p", &spec);
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    std::fs::remove_file(&manifest).unwrap();
    let manifest = world.manifest("p", &spec);
    assert_eq!(world.attempt(&manifest, "new-uid-1", "2026-01-01T00:00:00Z", &[]).ok().state, State::Skipped);
    world.file("orders.csv", csv(&["2,Oslo,2"]));
    let result = world.attempt(&manifest, "new-uid-2", "2026-01-02T00:00:00Z", &[]).ok();
    assert_eq!(result.interval.unwrap().start.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(world.rows(ALL).await, ["1|Oslo|1.00", "2|Oslo|2.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_start_at_once_add_the_rows_once() {
    const WORKERS: usize = 4;
    let world = World::new().await;
    world.file("orders.csv", csv(&["1,Oslo,1", "2,Bern,2"]));
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, mode: {{append: {{}}}}")));
    let run = |n: usize| {
        for _ in 0..60 {
            let ended = world.attempt(&manifest, &format!("run-{n}"), "2026-01-01T00:00:00Z", &[]);
            if ended.code != Some(21) {
                return ended.ok().state;
            }
            assert!(ended.output.contains("is under way"), "{}", ended.output);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        panic!("run {n} never got the lock");
    };
    let states: Vec<State> = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..WORKERS).map(|n| scope.spawn(move || run(n))).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    });
    assert_eq!(states.iter().filter(|state| **state == State::Succeeded).count(), 1, "{states:?}");
    assert_eq!(states.iter().filter(|state| **state == State::Skipped).count(), WORKERS - 1, "{states:?}");
    assert_eq!(world.rows(ALL).await, ["1|Oslo|1.00", "2|Bern|2.00"]);
    assert_eq!(world.tables().await, ["orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn append_adds_an_interval_once() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, mode: {{append: {{}}}}")));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    day(&world, &manifest, 2, &["2,Oslo,2"]).ok();
    let both = ["1|Oslo|1.00", "2|Oslo|2.00"];
    assert_eq!(world.rows(ALL).await, both);

    // The same tick as another run, and an earlier one.
    for end in ["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"] {
        let again = world.attempt(&manifest, "another", end, &[]).ok();
        assert_eq!(again.state, State::Skipped, "{again:?}");
    }
    let exactly = |start: &str, end: &str| {
        world.worker(&["run", manifest.to_str().unwrap(), "--interval-start", start, "--interval-end", end], &[])
    };
    assert_eq!(exactly("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z").ok().state, State::Skipped);
    let message = exactly("2026-01-01T12:00:00Z", "2026-01-03T00:00:00Z").failed(10, "interval_overlaps");
    assert!(message.contains("ask for the part that is missing"), "{message}");
    assert_eq!(world.rows(ALL).await, both);
    world.file("orders.csv", csv(&["3,Rom,3"]));
    exactly("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z").ok();
    assert_eq!(world.rows(ALL).await.len(), 3);
}
