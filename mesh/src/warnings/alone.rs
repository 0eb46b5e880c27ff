//! Traps that one extension has by itself.

use super::{Rule, Warning, secrets};
use crate::locate::{FieldPath, wasm_field};
use crate::model::{EnvValue, Extension, FailStrategy, Phase, PullPolicy, WasmFilter};

pub(super) fn check(extension: &Extension, warnings: &mut Vec<Warning>) {
    if extension.origin.kind == "WasmPlugin" {
        let what = "a WasmPlugin".to_owned();
        let fix = "where every control plane knows TrafficExtension, `migrate --to TrafficExtension` rewrites it";
        warnings.push(Warning::new(Rule::WasmPluginSuperseded, extension, FieldPath::keys(&["kind"]), what, fix));
    }
    let Some(wasm) = extension.wasm() else { return };
    image(extension, wasm, warnings);
    failure(extension, wasm, warnings);
    secrets::check(extension, wasm, warnings);
    for (index, variable) in wasm.env.iter().enumerate() {
        let path = wasm_field(extension, "vmConfig").then("env").then(index);
        let fetched = !is_file(&wasm.url);
        if fetched && variable.name.starts_with("ISTIO_META_") {
            let what = format!("the module never sees the variable `{}`", variable.name);
            let fix = "give it another name";
            warnings.push(Warning::new(Rule::IstioMetaEnv, extension, path.clone().then("name"), what, fix));
        }
        if let EnvValue::Inline(value) = &variable.value
            && secrets::is_secret(&variable.name, value)
        {
            let what = format!("the variable `{}` looks like a secret in plain text", variable.name);
            let fix = "write `valueFrom: HOST`, and give the proxy the variable from a Secret";
            warnings.push(Warning::new(Rule::SecretInConfig, extension, path.then("value"), what, fix));
        }
    }
}

fn image(extension: &Extension, wasm: &WasmFilter, warnings: &mut Vec<Warning>) {
    if wasm.sha256.is_some() && is_file(&wasm.url) {
        let what = "sha256 stands beside a file:// url".to_owned();
        let fix = "check the file where it is made, or publish the module as an image and pin that";
        warnings.push(Warning::new(Rule::Sha256OnFile, extension, wasm_field(extension, "sha256"), what, fix));
    }
    if crate::shown_url(&wasm.url).contains("<redacted>@") {
        let what = "the url carries credentials, which everybody reads who may read the resource".to_owned();
        let fix = "publish the module as an image, and name a Secret with `imagePullSecret`";
        warnings.push(Warning::new(Rule::SecretInConfig, extension, wasm_field(extension, "url"), what, fix));
    }
    let Some(image) = oci(&wasm.url).filter(|image| wasm.sha256.is_none() && !image.contains('@')) else { return };
    let last = image.rsplit('/').next().unwrap_or_default();
    let what = match (last.split_once(':'), wasm.pull_policy) {
        (Some((_, "latest")), PullPolicy::IfNotPresent) => "the image's tag is `latest`, and it is pulled only once",
        (None, PullPolicy::IfNotPresent) => "the image has no tag, which means `latest`, and it is pulled only once",
        (None, PullPolicy::Unspecified) => {
            "the image has no tag, which means `latest`, but only a url that ends in `:latest` is pulled more than once \
             by default"
        }
        _ => return,
    };
    let fix = "pin what was tested with `sha256`, or set `imagePullPolicy: Always`";
    warnings.push(Warning::new(Rule::StaleTag, extension, wasm_field(extension, "url"), what.to_owned(), fix));
}

fn failure(extension: &Extension, wasm: &WasmFilter, warnings: &mut Vec<Warning>) {
    if wasm.fail_strategy != FailStrategy::FailOpen {
        return;
    }
    let path = || wasm_field(extension, "failStrategy");
    let phase = match extension.phase {
        Phase::Authn => Some("AUTHN"),
        Phase::Authz => Some("AUTHZ"),
        Phase::Stats | Phase::Unspecified => None,
    };
    if let Some(phase) = phase {
        let what = format!("it is to fail open, in phase {phase}");
        let fix = "leave failStrategy out, which means FAIL_CLOSE, or write FAIL_RELOAD";
        warnings.push(Warning::new(Rule::FailOpenAuth, extension, path(), what, fix));
    }
    let what = "FAIL_OPEN does not save the request that crashes the plugin".to_owned();
    let fix = "write FAIL_RELOAD if a fresh start is what is wanted, and fix the crash";
    warnings.push(Warning::new(Rule::FailOpenCrash, extension, path(), what, fix));
}

fn is_file(url: &str) -> bool {
    url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file://"))
}

/// What stands behind `oci://`, which may be left out.
fn oci(url: &str) -> Option<&str> {
    match url.split_once("://") {
        Some((scheme, rest)) => scheme.eq_ignore_ascii_case("oci").then_some(rest),
        None => Some(url),
    }
}
