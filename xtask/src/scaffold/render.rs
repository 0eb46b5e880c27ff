//! A template's files for one plugin: placeholders filled in, manifests and `Cargo.toml` written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::Template;
use super::name::Name;
use super::place::{INHERITED, Sdk, Workspace, quoted};
use super::template::{
    CLIPPY, GITIGNORE, LICENSE, LUA, LUA_WORKFLOW, Parts, README, SCHEMA_TEST, SERDE, TRAFFIC_EXTENSION, WASM_PLUGIN,
    WORKFLOW,
};

/// The first version of a project of its own.
const FIRST: &str = "0.1.0";

/// Where the declarative test of the plugin alone is.
const SUITE: &str = "tests/plugin.yaml";

/// What is to be made.
pub(crate) struct Order<'a> {
    pub(crate) name: &'a Name,
    pub(crate) template: Template,
    pub(crate) description: &'a str,
    pub(crate) phase: Option<&'a str>,
    /// The image repository.
    pub(crate) image: &'a str,
    pub(crate) home: Home<'a>,
    /// How the command line is called there.
    pub(crate) program: &'a str,
}

/// Where it is to be.
pub(crate) enum Home<'a> {
    Member(&'a Workspace),
    Project(&'a Sdk),
}

/// The files by their paths, and the commands that are next.
pub(crate) struct Rendered {
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) commands: Vec<String>,
}

impl Order<'_> {
    /// Makes the files.
    pub(crate) fn render(&self) -> Rendered {
        let parts = self.template.parts();
        let values = self.values(parts.as_ref());
        let mut files = BTreeMap::new();
        let mut add = |path: &str, text: &str| files.insert(path.to_owned(), fill(text, &values));
        if let Some(parts) = &parts {
            add("src/lib.rs", parts.lib);
            add("src/config.rs", parts.config);
            add("tests/traffic.rs", parts.traffic);
            add("tests/schema.rs", SCHEMA_TEST);
            add("tests/config.example.json", parts.example);
            add("config.schema.json", parts.schema);
            add("README.md", README);
            add("manifests/wasmplugin.yaml", WASM_PLUGIN);
            add("manifests/trafficextension.yaml", TRAFFIC_EXTENSION);
            if let Some(suite) = parts.suite {
                add(SUITE, suite);
            }
            if let Some(chain) = parts.chain {
                add("tests/chain.yaml", chain);
            }
        } else {
            for (path, text) in LUA {
                add(path, text);
            }
        }
        if let Home::Project(_) = self.home {
            let workflow = if parts.is_some() { WORKFLOW } else { LUA_WORKFLOW };
            add(".github/workflows/plugin.yaml", workflow);
            add(".gitignore", GITIGNORE);
            files.insert("LICENSE".to_owned(), LICENSE.to_owned());
            if parts.is_some() {
                files.insert("clippy.toml".to_owned(), CLIPPY.to_owned());
            }
        }
        if parts.is_some() {
            files.insert("Cargo.toml".to_owned(), self.manifest());
        }
        let mut commands = self.commands();
        commands.push(self.run());
        Rendered { files, commands }
    }

    fn version(&self) -> &str {
        match self.home {
            Home::Member(workspace) => workspace.version().unwrap_or(FIRST),
            Home::Project(_) => FIRST,
        }
    }

    /// The folder as commands name it: in a project of its own they are called within it.
    fn folder(&self) -> String {
        match (&self.home, self.template) {
            (Home::Project(_), _) => String::new(),
            (Home::Member(_), Template::Lua) => format!("extensions/{}/", self.name.as_str()),
            (Home::Member(_), _) => format!("plugins/{}/", self.name.as_str()),
        }
    }

    fn package_flag(&self) -> String {
        match self.home {
            Home::Member(_) => format!(" --package {}", self.name.as_str()),
            Home::Project(_) => String::new(),
        }
    }

    fn has_suite(&self) -> bool {
        self.template.parts().is_some_and(|parts| parts.suite.is_some())
    }

    /// What whoever made it runs next: each ends by itself.
    fn commands(&self) -> Vec<String> {
        let (program, name, folder) = (self.program, self.name.as_str(), self.folder());
        if self.template == Template::Lua {
            return vec![
                format!("{program} lint -f {folder}extension.yaml"),
                format!("{program} test {folder}tests/chain.yaml"),
            ];
        }
        let mut commands = vec![format!("cargo test{}", self.package_flag())];
        if self.has_suite() {
            commands.push(format!("{program} test {name}"));
        }
        commands.push(format!("{program} package {name}"));
        commands.push(format!("{program} lint -f {folder}manifests/trafficextension.yaml"));
        commands
    }

    /// Serves it until it is told to stop.
    fn run(&self) -> String {
        let (program, folder, flags) = (self.program, self.folder(), self.template.run_flags());
        if self.template == Template::Lua {
            return format!("{program} run -f {folder}extension.yaml{flags}");
        }
        let (image, version, name) = (self.image, self.version(), self.name.as_str());
        let image = quoted(&format!("oci://{image}:{version}=oci:dist:{name}"));
        format!("{program} run -f {folder}manifests/trafficextension.yaml \\\n  --image {image}{flags}")
    }

    fn values(&self, parts: Option<&Parts>) -> BTreeMap<&'static str, String> {
        let mut values = BTreeMap::new();
        let sources = parts.map(|parts| [parts.lib, parts.config, parts.traffic]).unwrap_or_default();
        let mut taken: BTreeSet<&str> = sources.iter().flat_map(|source| type_names(source)).collect();
        taken.insert("PlugwrightPlugin");
        taken.remove("PluginName");
        let indented = |spaces: &str, key: &str, value: Option<&str>| {
            value.map(|value| format!("\n{spaces}{key}: {value}")).unwrap_or_default()
        };
        let is_network = self.template == Template::Network;
        values.insert("plugin-name", self.name.as_str().to_owned());
        values.insert("plugin_name", self.name.identifier());
        values.insert("PluginName", self.name.type_name(&taken));
        values.insert("{{description}}", self.description.to_owned());
        values.insert("{{program}}", self.program.to_owned());
        values.insert("{{image}}", self.image.to_owned());
        values.insert("{{version}}", self.version().to_owned());
        values.insert("{{phase}}", indented("  ", "phase", self.phase));
        values.insert("{{type}}", indented("  ", "type", is_network.then_some("NETWORK")));
        values.insert("{{wasm-type}}", indented("    ", "type", is_network.then_some("NETWORK")));
        let place = self.phase.map_or_else(|| "No phase.".to_owned(), |phase| format!("Phase `{phase}`."));
        values.insert("{{where}}", if is_network { format!("A network filter. {place}") } else { place });
        values.insert("{{commands}}", self.commands().join("\n"));
        values.insert("{{run}}", self.run());
        values.insert("{{served}}", self.template.served().to_owned());
        let (program, flag) = (self.program, self.package_flag());
        let wasm =
            "PLUGWRIGHT_TEST_HOST=$(PROGRAM test-host) PLUGWRIGHT_TEST_MODULES=$PWD/target/plugins \\\n  cargo test";
        let wasm = wasm.replace("PROGRAM", program);
        values.insert("{{wasm}}", format!("{program} build {}\n{wasm}{flag}", self.name.as_str()));
        if let Some(parts) = parts {
            let config: Value = serde_json::from_str(parts.example).unwrap_or_default();
            values.insert("{{config}}", block(&config, 4).trim_end().to_owned());
            values.insert("{{wasm-config}}", block(&config, 6).trim_end().to_owned());
            values.insert("{{table}}", fill(parts.table, &values));
            values.insert("{{about}}", parts.about.to_owned());
        }
        if let Home::Project(sdk) = self.home {
            let install = sdk.cargo_install();
            let text = format!("`cargo plugwright` comes with\n\n```sh install\n{install}\n```\n\n");
            values.insert("{{install}}", text);
            let step = "    - run: cargo plugwright test\n".to_owned();
            values.insert("{{suite-step}}", if self.has_suite() { step } else { String::new() });
            values.insert("{{cargo-install}}", install);
            let prefix = self.image.rsplit_once('/').map_or(self.image, |(prefix, _)| prefix);
            values.insert("{{registry-prefix}}", prefix.to_owned());
        } else {
            values.insert("{{install}}", String::new());
        }
        values
    }

    fn manifest(&self) -> String {
        let mut out = format!("[package]\nname = \"{}\"\n", self.name.as_str());
        let _ = writeln!(out, "description = {}", text(self.description));
        for key in INHERITED {
            let own = match *key {
                "version" => format!("\"{FIRST}\""),
                "edition" => "\"2024\"".to_owned(),
                "rust-version" => text(env!("CARGO_PKG_RUST_VERSION")),
                "license" => "\"Apache-2.0\"".to_owned(),
                "publish" => "false".to_owned(),
                _ => String::new(),
            };
            match self.home {
                Home::Member(workspace) if workspace.gives(key) => {
                    let _ = writeln!(out, "{key}.workspace = true");
                }
                _ if own.is_empty() => {}
                _ => {
                    let _ = writeln!(out, "{key} = {own}");
                }
            }
        }
        out.push_str("\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n\n[package.metadata.plugin]\n");
        if let Some(phase) = self.phase {
            let _ = writeln!(out, "phase = \"{phase}\"");
        }
        let _ = writeln!(out, "root-ids = []\nconfig-schema = \"config.schema.json\"\nimage = {}", text(self.image));
        out.push_str("\n[dependencies]\n");
        for (name, own) in self.dependencies() {
            match self.home {
                Home::Member(workspace) if workspace.has_dependency(&name) => {
                    let _ = writeln!(out, "{name}.workspace = true");
                }
                _ => {
                    let _ = writeln!(out, "{name} = {own}");
                }
            }
        }
        out.push_str(match self.home {
            Home::Member(workspace) if workspace.has_lints() => "\n[lints]\nworkspace = true\n",
            _ => LINTS,
        });
        if let Home::Project(_) = self.home {
            // No folder above is to take it in.
            out.push_str("\n[workspace]\n");
        }
        out
    }

    fn dependencies(&self) -> Vec<(String, String)> {
        let own;
        let sdk = match self.home {
            Home::Project(sdk) => sdk,
            Home::Member(_) => {
                own = Sdk::of_this_program();
                &own
            }
        };
        let source = match sdk {
            Sdk::Path(folder) => format!("{{ path = {} }}", text(&folder.to_string_lossy())),
            Sdk::Git { url, at: None } => format!("{{ git = {} }}", text(url)),
            Sdk::Git { url, at: Some((kind, value)) } => format!("{{ git = {}, {kind} = {} }}", text(url), text(value)),
        };
        let mut dependencies = vec![("plugwright-sdk".to_owned(), source)];
        let rest = [SERDE]
            .iter()
            .chain(self.template.dependencies())
            .map(|(name, own)| ((*name).to_owned(), (*own).to_owned()));
        dependencies.extend(rest);
        dependencies
    }
}

/// For crates that get none from a workspace.
const LINTS: &str = "
[lints.rust]
unsafe_code = \"deny\"

# A panic fails every request that the proxy's worker has.
[lints.clippy]
expect_used = \"warn\"
panic = \"warn\"
unwrap_used = \"warn\"
";

/// A string of TOML: JSON's escapes are TOML's, but for the slash, which `serde_json` leaves alone, and DEL.
fn text(value: &str) -> String {
    Value::from(value).to_string().replace('\u{7f}', "\\u007F")
}

/// Puts values in the places of their keys, once: what a value says is not looked at again.
fn fill(template: &str, values: &BTreeMap<&'static str, String>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(character) = rest.chars().next() {
        let found = values.iter().find_map(|(key, value)| Some((value, rest.strip_prefix(key)?)));
        if let Some((value, after)) = found {
            out.push_str(value);
            rest = after;
        } else {
            out.push(character);
            rest = rest.get(character.len_utf8()..).unwrap_or_default();
        }
    }
    out
}

/// The words of a source that may be types.
fn type_names(source: &str) -> impl Iterator<Item = &str> {
    let words = source.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with(|first: char| first.is_ascii_uppercase()))
}

/// A JSON value as a block of YAML.
fn block(value: &Value, indent: usize) -> String {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) => fields.iter().fold(String::new(), |mut out, (name, value)| {
            match nested(value) {
                Some(step) => {
                    let _ = write!(out, "{pad}{}:\n{}", scalar(name), block(value, indent + step));
                }
                None => {
                    let _ = writeln!(out, "{pad}{}: {}", scalar(name), inline(value));
                }
            }
            out
        }),
        Value::Array(items) => items.iter().fold(String::new(), |mut out, item| {
            let item = if nested(item).is_some() { block(item, indent + 2) } else { format!("{}\n", inline(item)) };
            let _ = write!(out, "{pad}- {}", item.trim_start());
            out
        }),
        other => format!("{pad}{}\n", inline(other)),
    }
}

/// How much deeper a value that has lines of its own is; lists stay where they are.
fn nested(value: &Value) -> Option<usize> {
    match value {
        Value::Object(fields) if !fields.is_empty() => Some(2),
        Value::Array(items) if !items.is_empty() => Some(0),
        _ => None,
    }
}

fn inline(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), scalar)
}

/// A string of YAML: plain where nothing could take it for something else.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let starts = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let word =
        ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if starts && !word && text.bytes().all(plain) { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{block, fill, text};

    #[test]
    fn values_are_put_in_once() {
        let values = BTreeMap::from([
            ("{{description}}", "plugin-name {{description}}".to_owned()),
            ("plugin-name", "x".to_owned()),
        ]);
        assert_eq!(fill("plugin-name: {{description}} é", &values), "x: plugin-name {{description}} é");
    }

    #[test]
    fn json_becomes_yaml_that_says_the_same() {
        let value = serde_json::json!({
            "a": "outbound|80||x", "b": [{"c": "yes", "d": 1}, {"c": "2x", "d": null}], "e": ["x", true], "f": {}, "g": {"h": "i"}
        });
        let yaml = "  a: \"outbound|80||x\"\n  b:\n  - c: \"yes\"\n    d: 1\n  - c: \"2x\"\n    d: null\n  e:\n  - x\n  - true\n  f: {}\n  g:\n    h: i\n";
        assert_eq!(block(&value, 2), yaml);
    }

    #[test]
    fn a_string_of_toml_is_what_it_was() {
        for value in ["plain", "a \"b\" \\ é\t\n", "\u{7f}", "ghcr.io/a/b"] {
            let table: toml::Table = format!("x = {}", text(value)).parse().unwrap();
            assert_eq!(table["x"].as_str(), Some(value));
        }
    }
}
