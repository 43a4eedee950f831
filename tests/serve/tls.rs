//! What is wrong with `--tls-cert` and `--tls-key` is said before anything is served.

use std::fs;
use std::process::Command;

use crate::model;

#[test]
fn files_that_are_no_certificate_and_key_are_named() {
    let (dir, path) = model();
    let [absent, text] =
        ["absent.pem", "text.pem"].map(|name| dir.path().join(name).to_str().unwrap().to_string());
    fs::write(&text, "no PEM").unwrap();
    for (args, expected) in [
        (vec!["--tls-cert", &text], "only one of them is given"),
        (vec!["--tls-key", &text], "only one of them is given"),
        (vec!["--tls-cert", &absent, "--tls-key", &text], "absent.pem: cannot read"),
        (vec!["--tls-cert", &text, "--tls-key", &absent], "text.pem: no certificate"),
    ] {
        let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
            .args(["serve", path.to_str().unwrap()])
            .args(&args)
            .output()
            .unwrap();
        let message = String::from_utf8(ran.stderr).unwrap();
        assert!(!ran.status.success() && message.contains(expected), "{args:?}: {message}");
        assert!(message.contains("--tls-cert and --tls-key"), "{message}");
    }
}
