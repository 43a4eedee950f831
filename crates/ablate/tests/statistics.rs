//! Every statistic against scipy and statsmodels (`tests/golden/make_statistics.py`), to 1e-9.

use serde_json::Value;
use tritforge_ablate::stats::{difference, holm, summary, t_cdf, t_quantile, unpaired_difference};

const GOLDEN: &str = include_str!("../../../tests/golden/statistics.json");

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn near(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(error < 1e-9, "{what}: {found} is not {expected}");
}

#[test]
fn the_t_distribution_is_scipys() {
    let golden = golden();
    for row in golden["cdf"].as_array().unwrap() {
        let [t, df, _] = numbers(row)[..] else { panic!() };
        near(t_cdf(t, df), &row[2], &format!("cdf of {t}, {df}"));
    }
    for row in golden["quantile"].as_array().unwrap() {
        let [p, df, _] = numbers(row)[..] else { panic!() };
        near(t_quantile(p, df), &row[2], &format!("quantile of {p}, {df}"));
    }
}

#[test]
fn means_differences_and_tests_are_scipys() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let (arm, base) = (numbers(&case["arm"]), numbers(&case["base"]));
        let (s, expected) = (summary(&arm), &case["summary"]);
        assert_eq!(s.n as u64, expected["n"].as_u64().unwrap());
        near(s.mean, &expected["mean"], "mean");
        near(s.sd, &expected["sd"], "sd");
        near(s.half_width, &expected["half_width"], "interval");
        let pairs: Vec<(f64, f64)> = arm.iter().copied().zip(base).collect();
        let (d, expected) = (difference(&pairs), &case["paired"]);
        for (found, key) in [
            (d.mean, "mean"),
            (d.sd, "sd"),
            (d.half_width, "half_width"),
            (d.t, "t"),
            (d.df, "df"),
            (d.p, "p"),
            (d.sign_flip_p.unwrap(), "sign_flip_p"),
            (d.smallest_shown, "smallest_shown"),
        ] {
            near(found, &expected[key], &format!("paired {key} of {}", pairs.len()));
        }
        assert_eq!(d.wins.unwrap() as u64, expected["wins"].as_u64().unwrap());
        let expected = &case["unpaired"];
        let d = unpaired_difference(&arm, &numbers(&expected["base"]));
        let found = [d.mean, d.half_width, d.t, d.df, d.p, d.smallest_shown];
        for (found, key) in found.into_iter().zip(["mean", "half_width", "t", "df", "p", "smallest_shown"]) {
            near(found, &expected[key], &format!("unpaired {key}"));
        }
        assert_eq!((d.sign_flip_p, d.wins), (None, None));
    }
}

#[test]
fn holms_correction_is_that_of_statsmodels() {
    for case in golden()["holm"].as_array().unwrap() {
        for (found, expected) in
            holm(&numbers(&case["p"])).into_iter().zip(case["adjusted"].as_array().unwrap())
        {
            near(found, expected, "adjusted p");
        }
    }
}
