//! The pod: its service account, resources and disk.

use super::{Problems, pod_template};
use crate::worker::{Quantity, Resources, Worker};

/// Less memory than this does not hold the worker itself.
const MEMORY_BYTES_MIN: f64 = (128 << 20) as f64;
pub(super) fn check(worker: &Worker, problems: &mut Problems) {
    if let Some(name) = &worker.service_account_name {
        problems.object_name("spec.worker.serviceAccountName", name, "service account");
    }
    if let Some(resources) = &worker.resources {
        self::resources(resources, problems);
    }
    problems.size("spec.worker.scratch", worker.scratch.as_ref());
    if let Some(template) = &worker.pod_template {
        pod_template::check(template, problems);
    }
}

fn resources(resources: &Resources, problems: &mut Problems) {
    const FIELD: &str = "spec.worker.resources";
    for (part, list) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        for (name, quantity) in list {
            if amount(quantity).is_none() {
                problems.add(
                    format!("{FIELD}.{part}.{name}"),
                    format!("{quantity} is not a quantity; write one such as 500m or 512Mi"),
                );
            }
        }
    }
    for (name, request) in &resources.requests {
        if let Some(limit) = resources.limits.get(name)
            && let (Some(request_amount), Some(limit_amount)) = (amount(request), amount(limit))
            && request_amount > limit_amount
        {
            problems.add(
                format!("{FIELD}.requests.{name}"),
                format!("{request} is more than the limit of {limit}; raise the limit"),
            );
        }
    }
    if let Some(memory) = resources.limits.get("memory")
        && let Some(bytes) = amount(memory)
        && bytes < MEMORY_BYTES_MIN
    {
        let hint = match memory {
            Quantity::Text(text) if text.ends_with('m') => "m is a thousandth of a byte; write Mi",
            _ => "write 128Mi or more",
        };
        problems.add(
            format!("{FIELD}.limits.memory"),
            format!("{memory} is less than 128Mi, which the worker needs for itself; {hint}"),
        );
    }
}

/// A Kubernetes quantity as a number; good enough to compare.
fn amount(quantity: &Quantity) -> Option<f64> {
    let text = match quantity {
        Quantity::Number(number) => return (*number >= 0).then_some(*number as f64),
        Quantity::Text(text) => text.as_str(),
    };
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = text.split_at(digits);
    let number: f64 = if number.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        number.parse().ok()?
    } else {
        return None;
    };
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].iter().position(|known| *known == unit);
    let binary = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|known| *known == unit);
    match (decimal, binary, unit.strip_prefix(['e', 'E'])) {
        (Some(at), ..) => Some(number * 1000_f64.powi(at as i32 - 3)),
        (_, Some(at), _) => Some(number * 1024_f64.powi(at as i32)),
        (.., Some(exponent)) => Some(number * 10_f64.powi(exponent.parse::<i8>().ok()?.into())),
        _ => None,
    }
}
