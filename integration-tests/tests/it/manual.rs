//! What the programs say of themselves: completions and manual pages.

use std::path::Path;

use integration_tests::{
    program::{Binary, build},
    stack::Stack,
};

/// Neither command needs a configuration, so that there is none.
const NO_CONFIG: &str = "/nowhere/outpour.toml";

async fn said(binary: Binary, args: &[&str]) -> String {
    build().await.unwrap();
    let output = binary.output(Path::new(NO_CONFIG), args).await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that `--help` lists.
async fn commands(binary: Binary) -> Vec<String> {
    let help = said(binary, &["--help"]).await;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        // Wrapped descriptions stand further to the right.
        let name = line.strip_prefix("  ")?;
        (!name.starts_with(' ')).then(|| name.split_whitespace().next().map(str::to_owned))?
    });
    let names: Vec<_> = names.filter(|name| name != "help").collect();
    assert!(names.contains(&"run".to_owned()) && names.len() > 5, "{names:?}");
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_of_every_shell_name_every_command() {
    for binary in [Binary::Relay, Binary::Consumer] {
        let commands = commands(binary).await;
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let text = said(binary, &["completions", shell]).await;
            assert!(text.contains(binary.name()), "{shell}");
            for command in &commands {
                assert!(text.contains(command), "{shell}: {command}");
            }
        }
        // By default on each command, as `--config` is.
        assert!(said(binary, &["completions", "fish"]).await.contains("log-format"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_manual_page_of_every_command() {
    let stack = Stack::shared().await.unwrap();
    for binary in [Binary::Relay, Binary::Consumer] {
        let dir = std::env::temp_dir().join(stack.unique("man"));
        let page = said(binary, &["man"]).await;
        assert!(page.contains(".TH") && page.contains("SUBCOMMANDS"), "{page}");
        said(binary, &["man", "--out", dir.to_str().unwrap()]).await;
        let whole = std::fs::read_to_string(dir.join(format!("{}.1", binary.name()))).unwrap();
        assert_eq!(whole, page);
        for command in commands(binary).await {
            let name = format!("{}-{command}.1", binary.name());
            let page = std::fs::read_to_string(dir.join(&name));
            let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
            for part in [".SH NAME", ".SH SYNOPSIS", "\\-\\-config"] {
                assert!(page.contains(part), "{name}: {part}\n{page}");
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
