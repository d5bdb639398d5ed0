//! `crdgen [OUT_DIR] [CHART_DIR] [DOCS_DIR]`, run by `make gen`: everything that is made from the types in `api/src`.
//!
//! It writes the two CRDs, the chart's copies of them, the merge keys for Kustomize, and the reference documentation.
//! The CRDs are what the derives say, with the few changes in [`tidy`].

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kube::CustomResourceExt;
use report_api::pipeline::{ReportPipeline, ReportPipelineSpec};
use report_api::run::{ReportRun, ReportRunSpec};
use report_api::status::{ReportPipelineStatus, ReportRunStatus};
use schemars::schema_for;
use serde_json::{Map, Value, json};

/// Largest CRD as YAML. Client-side apply keeps a copy of the object in an annotation of at most 256 KiB.
const CRD_BYTES_MAX: usize = 200_000;
const MADE_BY: &str = "made by `make gen`; do not edit";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut folder = |default: &str| arguments.next().unwrap_or_else(|| default.into());
    let (out, chart, docs) = (folder("crds"), folder("charts/report-operator"), folder("docs/reference"));

    let mut openapi = Map::new();
    let pipeline = [("spec", schema_for!(ReportPipelineSpec)), ("status", schema_for!(ReportPipelineStatus))];
    let run = [("spec", schema_for!(ReportRunSpec)), ("status", schema_for!(ReportRunStatus))];
    for (name, crd, parts) in
        [("reportpipelines", ReportPipeline::crd(), pipeline), ("reportruns", ReportRun::crd(), run)]
    {
        let mut crd = serde_json::to_value(crd)?;
        for (part, schema) in parts {
            let schema = schema.to_value();
            if let Some(part) = crd.pointer_mut(&format!("/spec/versions/0/schema/openAPIV3Schema/properties/{part}")) {
                describe(part, &schema, &schema["$defs"]);
            }
        }
        tidy(&mut crd);
        explain_patterns(&mut crd)?;
        let file = format!("{name}.{}.yaml", report_api::GROUP);
        let yaml = serde_yaml::to_string(&crd)?;
        if yaml.len() > CRD_BYTES_MAX {
            return Err(format!("{file} has {} bytes; the most is {CRD_BYTES_MAX}", yaml.len()).into());
        }
        write(&out.join(&file), &format!("# {MADE_BY}\n{yaml}"))?;
        write(&chart.join("templates/crds").join(&file), &chart_template(&yaml))?;
        let (kind, definition) = merge_keys(&crd);
        openapi.insert(kind, definition);
        let page = format!("{}.md", text(&crd, "/spec/names/singular"));
        write(&docs.join(page), &reference(&crd))?;
    }
    // In a folder of its own: `kubectl apply -f crds/` reads JSON files too.
    write(
        &out.join("kustomize/openapi.json"),
        &(serde_json::to_string_pretty(&json!({"$comment": MADE_BY, "definitions": openapi}))? + "\n"),
    )?;
    Ok(())
}

/// What to write where a pattern does not match: the API server would show the pattern alone.
const PATTERNS: [(&str, &str); 11] = [
    (
        r"^[a-z_][a-z0-9_]*$",
        "write lower case letters, digits and underscores, with no digit first, such as daily_orders",
    ),
    (
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "write lower case letters, digits and dashes, with no dash at an end, such as best-year",
    ),
    (r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "write the name of a Secret: lower case letters, digits, dashes and dots"),
    (r"^[-._a-zA-Z0-9]+$", "write the key of a Secret: letters, digits, dashes, dots and underscores"),
    (r"^[0-9]+(s|m|h|d)$", "write a whole number and one of s, m, h and d, such as 15m"),
    (r"^[0-9]+(Ki|Mi|Gi|Ti)$", "write a whole number and one of Ki, Mi, Gi and Ti, such as 512Mi"),
    (r"^https?://", "write an address that begins with http:// or https://"),
    (r"^(s3|file)://.+", "write s3://bucket/prefix or file:///absolute/folder"),
    (r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "write the name of a header, such as User-Agent"),
    (
        r"^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$",
        "write schema.table or table: letters, digits and underscores",
    ),
    (r"^[A-Za-z_][A-Za-z0-9_]*$", "write letters, digits and underscores, with no digit first"),
];

/// What to write where a column's type is none. A pattern would be dearer than rules may be, with 64 × 2,000 columns.
const TYPE_RULE: &str = "self in ['string', 'boolean', 'int16', 'int32', 'int64', 'float32', 'float64', 'date', 'timestamp', 'timestamptz'] || self.startsWith('decimal(')";
const TYPE_MESSAGE: &str =
    "write string, boolean, int16, int32, int64, float32, float64, decimal(18,3), date, timestamp or timestamptz";

/// Turns the patterns of text into rules with a message. Those of columns stay, but for the type's: there may be 128,000
/// columns, and rules have a budget.
fn explain_patterns(value: &mut Value) -> Result<(), String> {
    match value {
        Value::Object(object) => {
            if object.get("type").is_some_and(|kind| kind == "string")
                && let Some(Value::String(pattern)) = object.remove("pattern")
            {
                let known = PATTERNS.iter().find(|(known, _)| *known == pattern);
                let (_, message) =
                    known.ok_or_else(|| format!("say in PATTERNS what to write where {pattern} does not match"))?;
                let rule = json!({"rule": format!("self.matches(r\"{pattern}\")"), "message": message});
                let rules = object.entry("x-kubernetes-validations").or_insert(json!([]));
                rules.as_array_mut().expect("rules are a list").push(rule);
            }
            for (name, value) in object.iter_mut() {
                if name != "columns" {
                    explain_patterns(value)?;
                } else if let Some(kind) = value.pointer_mut("/items/properties/type").and_then(Value::as_object_mut) {
                    kind.remove("pattern");
                    kind.insert(
                        "x-kubernetes-validations".into(),
                        json!([{"rule": TYPE_RULE, "message": TYPE_MESSAGE}]),
                    );
                }
            }
            Ok(())
        }
        Value::Array(list) => list.iter_mut().try_for_each(explain_patterns),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let context = |error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(context)?;
    std::fs::write(path, text).map_err(context)?;
    Ok(())
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Gives each field its own description. On the way to a CRD, that of an optional field of an enum gives way to the enum's;
/// in the schema that the types have by themselves it is still there.
fn describe(schema: &mut Value, own: &Value, definitions: &Value) {
    let own = resolve(own, definitions);
    if let Some(items) = schema.get_mut("items") {
        describe(items, &own["items"], definitions);
    }
    for (name, property) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        let own = &own["properties"][name];
        if let Some(description) = own.get("description").and_then(Value::as_str) {
            let of_type = text(resolve(own, definitions), "/description");
            property["description"] = joined(description, of_type).into();
        }
        describe(property, own, definitions);
    }
}

/// A field's description, with what its type has to say beyond a first sentence of the same kind.
fn joined(of_field: &str, of_type: &str) -> String {
    let of_field = of_field.replace('\n', " ");
    let of_type = of_type.replace('\n', " ");
    let (first, more) = of_type.split_once(". ").unwrap_or((&of_type, ""));
    let (own_first, own_more) = of_field.split_once(". ").unwrap_or((of_field.trim_end_matches('.'), ""));
    if more.is_empty() || of_field == of_type {
        return of_field;
    }
    let first = if first.starts_with(own_first) { first } else { own_first };
    let sentences = [first, own_more.trim_end_matches('.'), more.trim_end_matches('.')];
    sentences
        .into_iter()
        .filter(|sentence| !sentence.is_empty())
        .map(|sentence| format!("{sentence}."))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The schema behind a reference, also an optional one.
fn resolve<'a>(schema: &'a Value, definitions: &'a Value) -> &'a Value {
    let option = schema
        .get("anyOf")
        .and_then(Value::as_array)
        .and_then(|options| options.iter().find(|option| option.get("$ref").is_some()));
    match option.unwrap_or(schema).get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/")) {
        Some(name) => resolve(&definitions[name], definitions),
        None => schema,
    }
}

/// Changes what the derives write and Kubernetes does not want: formats of integers that it does not know (it would warn
/// at each apply), bounds such as 0.0, line breaks of doc comments, and empty lists.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let unknown = object.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"));
            if unknown && object.get("type").is_some_and(|kind| kind == "integer") {
                object.remove("format");
            }
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description =
                    description.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
            }
            for bound in ["minimum", "maximum"] {
                if let Some(whole) = object.get(bound).and_then(Value::as_f64).filter(|value| value.fract() == 0.0) {
                    object.insert(bound.into(), Value::from(whole as i64));
                }
            }
            object.retain(|name, value| {
                !(name == "categories" || name == "shortNames") || value.as_array().is_none_or(|list| !list.is_empty())
            });
            object.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The chart's copy: templates would read `{{` in a description as theirs.
fn chart_template(yaml: &str) -> String {
    const METADATA: &str = "\nmetadata:\n";
    const KEEP: &str =
        "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n";
    let escaped = yaml.replace("{{", "{{ \"{{\" }}").replacen(METADATA, &format!("{METADATA}{KEEP}"), 1);
    format!("{{{{- /* {MADE_BY} */ -}}}}\n{{{{- if .Values.crds.enabled }}}}\n{escaped}{{{{- end }}}}\n")
}

/// The definition of a kind for Kustomize's `openapi` field: without it a patch replaces a whole list, with it the list's
/// items are matched by the same keys as in the API server.
fn merge_keys(crd: &Value) -> (String, Value) {
    let kind = text(crd, "/spec/names/kind");
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").cloned().unwrap_or_default();
    let spec = lists(&spec).unwrap_or(json!({"type": "object"}));
    let group = report_api::GROUP.split('.').rev().collect::<Vec<_>>().join(".");
    let definition = json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
        },
        "x-kubernetes-group-version-kind": [{"group": report_api::GROUP, "version": report_api::VERSION, "kind": kind}],
    });
    (format!("{group}.{}.{kind}", report_api::VERSION), definition)
}

/// The part of a schema that leads to lists with keys.
fn lists(schema: &Value) -> Option<Value> {
    if let Some(items) = schema.get("items") {
        let keys = schema.get("x-kubernetes-list-map-keys")?.as_array()?;
        let mut list = json!({
            "type": "array",
            "items": lists(items).unwrap_or(json!({"type": "object"})),
            "x-kubernetes-patch-strategy": "merge",
        });
        list["x-kubernetes-patch-merge-key"] = keys.first()?.clone();
        return Some(list);
    }
    let properties: Map<String, Value> = (schema.get("properties")?.as_object()?.iter())
        .filter_map(|(name, property)| lists(property).map(|found| (name.clone(), found)))
        .collect();
    (!properties.is_empty()).then(|| json!({"type": "object", "properties": properties}))
}

/// The reference page of a kind: a table for each object, in the order of the types.
fn reference(crd: &Value) -> String {
    let kind = text(crd, "/spec/names/kind");
    let root = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default();
    let names: Vec<&str> = crd
        .pointer("/spec/names/shortNames")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut out = format!(
        "<!-- {MADE_BY} -->\n# {kind}\n\n{}\n\n`apiVersion: {}/{}`, `kind: {kind}`. Short name: `{}`. The same text, field by field: `kubectl explain {}`.\n",
        text(&root, "/description"),
        report_api::GROUP,
        report_api::VERSION,
        names.join("`, `"),
        text(crd, "/spec/names/singular"),
    );
    for part in ["spec", "status"] {
        if let Some(schema) = root.pointer(&format!("/properties/{part}")) {
            section(part, schema, &mut out);
        }
    }
    out
}

/// An object's table, then those of the objects in it.
fn section(path: &str, schema: &Value, out: &mut String) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let _ = write!(out, "\n## {path}\n\n");
    if let Some(description) = schema.get("description").and_then(Value::as_str) {
        let _ = write!(out, "{description}\n\n");
    }
    for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
        let _ = writeln!(out, "- Rule: {}.", text(rule, "/message"));
    }
    if schema.get("x-kubernetes-validations").is_some() {
        out.push('\n');
    }
    out.push_str("| Field | Type | Meaning |\n|---|---|---|\n");
    for (name, property) in properties {
        let needed = if required.contains(&name.as_str()) { ", required" } else { "" };
        let meaning = text(property, "/description").replace("\n\n", " ").replace('|', "\\|").replace('<', "&lt;");
        let _ = writeln!(out, "| `{name}` | {}{needed} | {meaning} |", type_name(property));
    }
    for (name, property) in properties {
        match property.get("items") {
            Some(items) => section(&format!("{path}.{name}[]"), items, out),
            None => section(&format!("{path}.{name}"), property, out),
        }
    }
}

fn type_name(schema: &Value) -> String {
    if let Some(options) = schema.get("enum").and_then(Value::as_array) {
        return options
            .iter()
            .filter(|option| !option.is_null())
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(", ");
    }
    let unit = |name: &str, few: &str, many: &str| -> String {
        let bound = |which: &str| schema.get(format!("{which}{name}")).and_then(Value::as_u64);
        match (bound("min"), bound("max")) {
            (Some(min @ 1..), Some(max)) => format!(", {min} to {max} {many}"),
            (_, Some(max)) => format!(", at most {max} {many}"),
            (Some(min @ 1..), None) => format!(", at least {min} {few}"),
            _ => String::new(),
        }
    };
    if schema.get("x-kubernetes-int-or-string").is_some() {
        return "quantity".into();
    }
    match text(schema, "/type") {
        "array" => format!("list of {}{}", type_name(&schema["items"]), unit("Items", "item", "items")),
        "object" => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => format!("map of {}", type_name(values)),
            _ => "object".into(),
        },
        "string" if text(schema, "/format") == "date-time" => "time".into(),
        "string" => format!("text{}", unit("Length", "character", "characters")),
        "integer" => match (schema.get("minimum"), schema.get("maximum")) {
            (Some(min), Some(max)) => format!("whole number, {min} to {max}"),
            _ => "whole number".into(),
        },
        "" => "any".into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_gets_its_own_description_and_what_its_type_adds() {
        for (of_field, of_type, want) in [
            ("How to reach it.", "How to reach it. It is never read.", "How to reach it. It is never read."),
            ("A table.", "A table in a file. It is made.", "A table in a file. It is made."),
            ("The last run. Or none.", "A run in words.", "The last run. Or none."),
            ("How it is packed.", "", "How it is packed."),
            ("Lines\nof a comment.", "", "Lines of a comment."),
        ] {
            assert_eq!(joined(of_field, of_type), want, "{of_field} {of_type}");
        }
    }

    #[test]
    fn the_charts_copy_is_no_template_inside() {
        let chart = chart_template("kind: X\nmetadata:\n  name: x\ndescription: \"use {{ this }}\"\n");
        assert!(chart.contains("use {{ \"{{\" }} this }}"), "{chart}");
        assert!(chart.contains("metadata:\n  {{- if .Values.crds.keep }}\n"), "{chart}");
    }

    #[test]
    fn a_pattern_without_a_message_is_an_error() {
        let schema = |pattern: &str| json!({"properties": {"x": {"type": "string", "pattern": pattern}}});
        assert!(explain_patterns(&mut schema("^unheard-of$")).is_err());
        let mut known = schema(PATTERNS[0].0);
        explain_patterns(&mut known).unwrap();
        assert_eq!(text(&known, "/properties/x/x-kubernetes-validations/0/message"), PATTERNS[0].1);
    }
}
