//! `cargo xtask …` in this repository, `cargo plugwright …` once installed: build, package, prove and run plugins.

mod cmd;
mod environment;
mod handover;
mod input;
mod output;
mod progress;
mod report;
mod scaffold;
mod tools;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

/// Build, package, prove and run proxy-wasm plugins for Istio and Envoy.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 fine, 1 the thing checked is bad, 2 usage, 3 environment (network, tool missing)."
)]
enum Command {
    New(cmd::new::Args),
    Build(cmd::build::Args),
    Toolchain(cmd::toolchain::Args),
    Package(cmd::package::Args),
    Push(cmd::push::Args),
    Pull(cmd::pull::Args),
    Verify(cmd::verify::Args),
    Inspect(cmd::inspect::Args),
    Lint(cmd::lint::Args),
    Explain(cmd::explain::Args),
    Registry(cmd::registry::Args),
    Run(cmd::run::Args),
    Dev(cmd::dev::Args),
    Test(cmd::test::Args),
    TestHost(cmd::test_host::Args),
    Migrate(cmd::migrate::Args),
    Envoy(cmd::envoy::Args),
    Completions(cmd::completions::Args),
    Man(cmd::man::Args),
    Ci(cmd::ci::Args),
    Bench(cmd::bench::Args),
}

fn main() -> ExitCode {
    let called = Command::command().name(report::program()).bin_name(report::program());
    let matches = called.get_matches_from(arguments());
    let outcome = match Command::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()) {
        Command::New(args) => cmd::new::run(&args),
        Command::Build(args) => cmd::build::run(&args),
        Command::Toolchain(args) => cmd::toolchain::run(&args),
        Command::Package(args) => cmd::package::run(&args),
        Command::Push(args) => cmd::push::run(&args),
        Command::Pull(args) => cmd::pull::run(&args),
        Command::Verify(args) => cmd::verify::run(&args),
        Command::Inspect(args) => cmd::inspect::run(&args),
        Command::Lint(args) => cmd::lint::run(&args),
        Command::Explain(args) => cmd::explain::run(&args),
        Command::Registry(args) => cmd::registry::run(&args),
        Command::Run(args) => cmd::run::run(&args),
        Command::Dev(args) => cmd::dev::run(args),
        Command::Test(args) => cmd::test::run(args),
        Command::TestHost(args) => cmd::test_host::run(&args),
        Command::Migrate(args) => cmd::migrate::run(&args),
        Command::Envoy(args) => cmd::envoy::run(&args),
        Command::Completions(args) => {
            cmd::completions::run(&args, installed());
            Ok(())
        }
        Command::Man(args) => cmd::man::run(&args, installed()),
        Command::Ci(args) => cmd::ci::run(&args),
        Command::Bench(args) => cmd::bench::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The command line by the name that it is installed under, which is what a shell completes and `man` looks for.
fn installed() -> clap::Command {
    Command::command().name("cargo-plugwright").bin_name("cargo-plugwright")
}

/// Cargo runs `cargo-plugwright plugwright ARGS…` for `cargo plugwright ARGS…`: drop the repeated name.
fn arguments() -> impl Iterator<Item = std::ffi::OsString> {
    let mut seen = 0;
    std::env::args_os().filter(move |argument| {
        seen += 1;
        !(seen == 2 && argument == "plugwright")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Command;

    #[test]
    fn only_what_is_about_registries_is_listed_as_that() {
        for command in Command::command().get_subcommands() {
            let registry = command.get_arguments().filter(|argument| argument.get_help_heading() == Some("Registry"));
            let names: Vec<_> = registry.filter_map(clap::Arg::get_long).collect();
            let all = ["plain-http", "insecure-registry", "ca-file", "docker-config", "private-realm"];
            assert!(names.is_empty() || names == all, "{}: {names:?}", command.get_name());
        }
    }
}
