//! What the repository says about itself: documents that can go stale, and
//! things that must not be in it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use integration_tests::{
    pipeline::PATIENCE,
    program::{self, Binary},
    stack::shared_dir,
};
use outpour_schemas::{
    config::Config,
    mutants::{self, Mutant},
};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file under version control that is there.
fn tracked() -> Vec<String> {
    let output = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output();
    let output = output.expect("git is needed to know which files are the repository's");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let names = names.split_terminator('\0').map(str::to_owned);
    // One that is removed but not committed yet is listed too.
    let names: Vec<_> = names.filter(|name| root().join(name).is_file()).collect();
    assert!(names.iter().any(|name| name == "Cargo.toml"), "git lists {} files", names.len());
    names
}

/// docs/outpour.toml, with its defaults and maybe its examples in force.
fn reference(with_examples: bool) -> String {
    let uncomment = |line: &str| {
        let Some(comment) = line.strip_prefix('#') else { return Some(line.to_owned()) };
        if let Some(example) = comment.strip_prefix("     ") {
            return with_examples.then(|| example.to_owned());
        }
        // Prose has a space after its `#`.
        (!comment.is_empty() && !comment.starts_with(' ')).then(|| comment.to_owned())
    };
    let lines = read("docs/outpour.toml");
    lines.lines().filter_map(uncomment).map(|line| line + "\n").collect()
}

fn as_json(config: &Config) -> Value {
    // Secrets serialise as stars.
    let secrets = [
        &config.postgres.password,
        &config.kafka.password,
        &config.kafka.tls_key_password,
        &config.kafka.oauth_client_secret,
        &config.clickhouse.password,
    ];
    for secret in secrets {
        assert!(secret.is_empty());
    }
    serde_json::to_value(config).unwrap()
}

#[test]
fn the_reference_shows_the_defaults() {
    let config: Config = toml::from_str(&reference(false)).unwrap();
    let defaults = Config::default();
    assert_eq!(as_json(&config), as_json(&defaults));
    // Sizes are rounded where they are serialised.
    let sizes = |config: &Config| {
        [
            config.relay.max_record_size,
            config.relay.max_transaction_size,
            config.consumer.memory,
            config.batch.max_bytes,
        ]
    };
    assert_eq!(
        sizes(&config).map(|size| size.as_u64()),
        sizes(&defaults).map(|size| size.as_u64())
    );
}

#[test]
fn the_reference_shows_every_key() {
    let text = reference(true);
    let config: Config = toml::from_str(&text).unwrap();
    let written: toml::Table = text.parse().unwrap();
    let mut missing = Vec::new();
    collect_missing("", &as_json(&config), &serde_json::to_value(written).unwrap(), &mut missing);
    assert!(missing.is_empty(), "docs/outpour.toml does not show {missing:?}");
}

/// The keys of `known` that `written` does not have.
fn collect_missing(path: &str, known: &Value, written: &Value, missing: &mut Vec<String>) {
    match (known, written) {
        (Value::Object(known), Value::Object(written)) => {
            for (key, value) in known {
                let path = format!("{path}.{key}");
                match written.get(key) {
                    Some(written) => collect_missing(&path, value, written, missing),
                    None => missing.push(path),
                }
            }
        }
        (Value::Array(known), Value::Array(written)) => {
            for (known, written) in known.iter().zip(written) {
                collect_missing(path, known, written, missing);
            }
        }
        _ => {}
    }
}

#[test]
fn no_file_names_a_package_registry_or_a_place_on_one_machine() {
    // In parts, or this file would name them.
    let hosts = [
        ["index.crates", "io"],
        ["static.crates", "io"],
        ["pypi", "org"],
        ["pythonhosted", "org"],
        ["maven.apache", "org/maven2"],
        ["repo1.maven", "org"],
        ["deb.debian", "org"],
        ["proxy.golang", "org"],
        ["registry.npmjs", "org"],
    ];
    let mut forbidden: Vec<String> = hosts.iter().map(|parts| parts.join(".")).collect();
    forbidden.extend(["home", "root", "Users"].map(|dir| format!("/{dir}/")));
    // Where this very checkout is, unless that could be part of any path.
    let checkout = root();
    if checkout.components().count() > 2 {
        forbidden.push(checkout.to_str().unwrap().to_owned());
    }
    let mut found = Vec::new();
    for name in tracked() {
        // What is no text names nothing that is read.
        let Ok(text) = fs::read_to_string(root().join(&name)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let named = forbidden.iter().find(|word| line.contains(word.as_str()));
            found.extend(named.map(|word| format!("{name}:{}: {word}", number + 1)));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Programs that break a rule on purpose are built by naming the feature, and by
/// nothing else.
#[test]
fn no_build_has_mutants_unless_it_is_told_to() {
    let manifests = tracked().into_iter().filter(|name| name.ends_with("Cargo.toml"));
    let (mut looked_at, mut defined_by) = (0, Vec::new());
    for name in manifests {
        looked_at += 1;
        let manifest: toml::Table = read(&name).parse().unwrap();
        if let Some(features) = manifest.get("features").and_then(toml::Value::as_table) {
            defined_by.extend(features.contains_key("mutants").then(|| name.clone()));
            for (feature, turns_on) in features {
                assert!(!turns_on.to_string().contains("mutants"), "{name}: {feature}");
            }
        }
        for part in ["dependencies", "dev-dependencies", "build-dependencies", "workspace"] {
            let part = manifest.get(part).map(ToString::to_string).unwrap_or_default();
            assert!(!part.contains("mutants"), "{name}: {part}");
        }
    }
    assert!(looked_at > 4, "{looked_at} manifests: is this test blind?");
    assert_eq!(defined_by, ["schemas/Cargo.toml"]);
    // The target of that name alone.
    let mut target = String::new();
    for line in read("Makefile").lines() {
        if let Some((name, _)) = line.split_once(':').filter(|_| !line.starts_with('\t')) {
            name.clone_into(&mut target);
        }
        assert!(target == "mutants" || !line.contains("schemas/mutants"), "make {target}: {line}");
    }
    assert!(!read(".ci/run").contains("schemas/mutants"), ".ci/run builds them");
}

#[tokio::test]
async fn a_program_as_it_is_built_refuses_to_be_a_mutant() {
    program::build().await.unwrap();
    let config = root().join("docs/outpour.toml");
    let dir = shared_dir().unwrap();
    for binary in [Binary::Relay, Binary::Consumer] {
        let log = dir.join(format!("{}-is-no-mutant.log", binary.name()));
        let variables = [(mutants::VARIABLE, Mutant::ALL[0].name())];
        let mut program = binary.start_with(&config, &log, &[], &variables).unwrap();
        let code = program.ended(PATIENCE).await.unwrap();
        let told = program.log_text();
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("OUTPOUR_MUTANT names no configuration key"), "{told}");
    }
}

/// The targets that `make help` lists.
fn targets() -> BTreeSet<String> {
    let output = Command::new("make").arg("-s").arg("-C").arg(root()).arg("help").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let help = String::from_utf8(output.stdout).unwrap();
    let targets = help.lines().filter_map(|line| line.trim_start().strip_prefix("make "));
    targets.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn make_help_lists_every_target() {
    let makefile = read("Makefile");
    let phony = makefile.lines().find_map(|line| line.strip_prefix(".PHONY:")).unwrap();
    let phony: BTreeSet<_> = phony.split_whitespace().map(str::to_owned).collect();
    assert_eq!(targets(), phony);
}

#[test]
fn every_make_target_in_the_documents_exists() {
    let targets = targets();
    let documents: Vec<_> = tracked().into_iter().filter(|name| name.ends_with(".md")).collect();
    assert!(documents.iter().any(|name| name == "CONTRIBUTING.md"));
    let mut mentions = 0;
    for name in documents {
        for command in commands(&read(&name)) {
            let Some(arguments) = command.trim_start_matches("$ ").strip_prefix("make ") else {
                continue;
            };
            let arguments = arguments.split('#').next().unwrap_or_default();
            for target in arguments.split_whitespace().take_while(|word| *word != "&&") {
                if target.contains('=') || target.starts_with('-') {
                    continue;
                }
                mentions += 1;
                assert!(targets.contains(target), "{name}: `{command}`: there is no {target}");
            }
        }
    }
    assert!(mentions > 0, "no document mentions a target: is this test blind?");
}

/// The code spans of a Markdown text and the lines of its code blocks.
fn commands(markdown: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            commands.push(line.trim());
        } else {
            commands.extend(line.split('`').skip(1).step_by(2));
        }
    }
    commands
}

#[test]
fn code_is_found_in_markdown() {
    let text =
        "Say `make a b=1`, or `make c`.\n\n```sh\n$ make d # why\n```\n\n    make e\nmake sure\n";
    assert_eq!(commands(text), ["make a b=1", "make c", "$ make d # why", "make e"]);
}
