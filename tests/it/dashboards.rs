//! What stands in `deploy/` for Prometheus and Grafana fits what the program counts.

use std::collections::BTreeSet;
use std::fs;

use cloakroom::telemetry::Metrics;
use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

/// Every name of a metric in a text, and the labels that stand in braces behind it.
fn named(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("cloakroom_") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let selector =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(selector, _)| selector);
        // Between two quotes a value may hold anything.
        let outside: String = selector.replace("\\\"", "\"").split('"').step_by(2).collect();
        let labels = outside.split([',', '=', '!', '~']).map(str::trim).filter(|label| !label.is_empty());
        found.push((name.to_owned(), labels.map(str::to_owned).collect()));
    }
    found
}

fn assert_known(place: &str, text: &str) {
    let metrics = Metrics::new().expect("metrics");
    let mut seen = BTreeSet::new();
    for (name, labels) in named(text) {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let known = metrics.descriptions().iter().find(|one| match of_histogram {
            Some(bare) if one.kind == "histogram" => one.name == bare,
            _ => one.name == name && one.kind != "histogram",
        });
        let known = known.unwrap_or_else(|| panic!("{place} names {name}, which is no series"));
        // Of Prometheus itself, and of histograms.
        let foreign = ["job", "instance", "le"];
        for label in labels.iter().filter(|label| !foreign.contains(&label.as_str())) {
            assert!(known.labels.contains(label), "{place}: {name} has no label {label}");
        }
        seen.insert(name);
    }
    assert!(seen.len() > 15, "{place}: {seen:?}");
}

#[test]
fn every_metric_of_alerts_and_dashboard_exists_with_its_labels() {
    assert_known("alerts.yaml", &read("deploy/prometheus/alerts.yaml"));
    assert_known("alerts.test.yaml", &read("deploy/prometheus/alerts.test.yaml"));
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/cloakroom.json")).expect("JSON");
    let mut queries = String::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(panel["type"] == "row" || !targets.is_empty(), "{panel}");
        for target in targets {
            queries += target["expr"].as_str().expect("a query");
            queries.push('\n');
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if let Some(query) = variable["query"].as_object().and_then(|query| query["query"].as_str()) {
            queries += query;
        }
    }
    assert_known("the dashboard", &queries);
}

#[test]
fn every_alert_is_tried_both_ways_and_says_what_to_do() {
    let rules: serde_yaml::Value = serde_yaml::from_str(&read("deploy/prometheus/alerts.yaml")).expect("YAML");
    let tests: serde_yaml::Value = serde_yaml::from_str(&read("deploy/prometheus/alerts.test.yaml")).expect("YAML");
    let runbook = read("docs/how-to/alerts.md");
    let tests: Vec<_> = tests["tests"].as_sequence().expect("tests").iter().collect();
    let tried = |name: &str, fires: bool| {
        tests.iter().flat_map(|test| test["alert_rule_test"].as_sequence().expect("cases")).any(|case| {
            let expected = case["exp_alerts"].as_sequence().is_some_and(|alerts| !alerts.is_empty());
            case["alertname"] == name && expected == fires
        })
    };
    let rules = rules["groups"][0]["rules"].as_sequence().expect("rules");
    assert!(rules.len() >= 20);
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(tried(name, true) && tried(name, false), "{name} is not tried");
        let link = rule["annotations"]["runbook_url"].as_str().expect("a link");
        let anchor = link.strip_prefix("docs/how-to/alerts.md#").expect("a place in the runbook");
        let mut headings = runbook.lines().filter_map(|line| line.strip_prefix("### "));
        assert!(headings.any(|heading| heading.to_lowercase() == anchor), "{link}");
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().expect("a severity")));
    }
}
