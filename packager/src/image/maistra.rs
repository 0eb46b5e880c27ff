//! `manifest.yaml` (`OpenShift` Service Mesh 2.2, "`ServiceMeshExtension` container format").

use std::fmt::Write as _;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::Metadata;

/// The manifest's name, at the root of the layer.
pub(super) const FILE: &str = "manifest.yaml";

/// What an extension's manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaistraManifest {
    /// The extension's name.
    pub name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The phase it is meant for, in Maistra's words.
    pub phase: MaistraPhase,
    /// The priority it is meant for.
    pub priority: i32,
    /// Path of the module from the layer's root.
    pub module: String,
}

/// Where Maistra puts an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are all there is to say")]
pub enum MaistraPhase {
    PreAuthN,
    PostAuthN,
    PreAuthZ,
    PostAuthZ,
    PreStats,
    PostStats,
}

/// Why a file is not a Maistra manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaistraError {
    /// Not UTF-8, or not YAML.
    #[error("is not YAML: {reason}, in line {line}")]
    Syntax {
        /// Why.
        reason: String,
        /// Where, from 1.
        line: usize,
    },
    /// A field is missing, or not what it has to be.
    #[error("`{field}` is not {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

impl MaistraPhase {
    const ALL: [(&'static str, Self); 6] = [
        ("PreAuthN", Self::PreAuthN),
        ("PostAuthN", Self::PostAuthN),
        ("PreAuthZ", Self::PreAuthZ),
        ("PostAuthZ", Self::PostAuthZ),
        ("PreStats", Self::PreStats),
        ("PostStats", Self::PostStats),
    ];

    /// Istio's phase for it; `None` is unspecified.
    pub fn istio(self) -> Option<&'static str> {
        match self {
            Self::PreAuthN => Some("AUTHN"),
            Self::PostAuthN | Self::PreAuthZ => Some("AUTHZ"),
            Self::PostAuthZ | Self::PreStats => Some("STATS"),
            Self::PostStats => None,
        }
    }

    fn of(istio: Option<&str>) -> Self {
        match istio {
            Some("AUTHN") => Self::PreAuthN,
            Some("AUTHZ") => Self::PreAuthZ,
            Some("STATS") => Self::PreStats,
            _ => Self::PostStats,
        }
    }

    /// Maistra's word for it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, phase)| *phase == self).map_or("", |(name, _)| name)
    }
}

impl MaistraManifest {
    /// The manifest for a module file. Phase and priority are required; without them, what comes nearest to Istio's
    /// "unspecified" is written: `PostStats`, and 0.
    pub(super) fn of(metadata: &Metadata, module: &str) -> Self {
        Self {
            name: Some(metadata.name.clone()),
            description: metadata.description.clone(),
            version: metadata.version.clone(),
            phase: MaistraPhase::of(metadata.phase.as_deref()),
            priority: metadata.priority.unwrap_or(0),
            module: module.to_owned(),
        }
    }

    /// The file: the fields in the order of Maistra's documentation.
    pub(super) fn to_yaml(&self) -> String {
        let mut text = String::from("schemaVersion: 1\n\n");
        for (key, value) in [("name", &self.name), ("description", &self.description), ("version", &self.version)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key}: {}", quoted(value));
            }
        }
        let (phase, priority, module) = (self.phase.name(), self.priority, quoted(&self.module));
        let _ = write!(text, "phase: {phase}\npriority: {priority}\nmodule: {module}\n");
        text
    }

    /// Parse the file. Fields that are not known are left alone.
    pub fn parse(bytes: &[u8]) -> Result<Self, MaistraError> {
        let fields = fields(bytes)?;
        let find = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let text = |name| find(name).and_then(|value| value.text.clone()).filter(|text| !text.is_empty());
        let wrong = |field, expected| MaistraError::Field { field, expected };
        if text("schemaVersion").as_deref() != Some("1") {
            return Err(wrong("schemaVersion", "1"));
        }
        let phase = text("phase")
            .and_then(|text| MaistraPhase::ALL.iter().find(|(name, _)| *name == text).map(|(_, phase)| *phase));
        Ok(Self {
            name: text("name"),
            description: text("description"),
            version: text("version"),
            phase: phase.ok_or_else(|| {
                wrong("phase", "one of PreAuthN, PostAuthN, PreAuthZ, PostAuthZ, PreStats and PostStats")
            })?,
            priority: match find("priority") {
                None => 0,
                Some(value) => {
                    let number = value.text.as_deref().and_then(|text| text.parse().ok());
                    number.ok_or_else(|| wrong("priority", "a whole number"))?
                }
            },
            module: text("module").ok_or_else(|| wrong("module", "a path"))?,
        })
    }
}

/// A value at the top of the document; lists, mappings, aliases and null have no text.
struct Field {
    text: Option<String>,
}

/// The top-level mapping of the first document.
fn fields(bytes: &[u8]) -> Result<Vec<(String, Field)>, MaistraError> {
    let text = std::str::from_utf8(bytes).map_err(|error| MaistraError::Syntax {
        reason: "not UTF-8".to_owned(),
        line: bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count(),
    })?;
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut fields: Vec<(String, Field)> = Vec::new();
    let (mut depth, mut key) = (0_usize, None);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| MaistraError::Syntax {
            reason: error.info().to_owned(),
            line: error.marker().line().max(1),
        })?;
        let value = match event {
            Event::SequenceStart(..) if depth == 0 => break,
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                depth += 1;
                if depth == 2 { Field { text: None } } else { continue }
            }
            Event::MappingEnd | Event::SequenceEnd => {
                depth = depth.saturating_sub(1);
                continue;
            }
            Event::Scalar(text, style, ..) if depth == 1 => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                Field { text: (!null).then(|| text.into_owned()) }
            }
            Event::Alias(_) if depth == 1 => Field { text: None },
            Event::DocumentEnd => break,
            _ => continue,
        };
        match key.take() {
            None => key = Some(value.text.unwrap_or_default()),
            Some(key) if fields.iter().any(|(known, _)| *known == key) => {
                let line = span.start.line().max(1);
                return Err(MaistraError::Syntax { reason: format!("`{key}` is there twice"), line });
            }
            Some(key) => fields.push((key, value)),
        }
    }
    Ok(fields)
}

/// A double-quoted scalar. JSON's are YAML's, but for characters that YAML does not take as they are.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' => {
                quoted.push(character);
            }
            '\u{10000}'.. => quoted.push(character),
            _ => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentations_own_example_is_read() {
        let text = "schemaVersion: 1\n\nname: <your-extension>\ndescription: <description>\nversion: 1.0.0\n\
                    phase: PreAuthZ\npriority: 100\nmodule: extension.wasm\n";
        let manifest = MaistraManifest::parse(text.as_bytes()).unwrap();
        assert_eq!((manifest.name.as_deref(), manifest.version.as_deref()), (Some("<your-extension>"), Some("1.0.0")));
        assert_eq!((manifest.phase.istio(), manifest.priority), (Some("AUTHZ"), 100));
        assert_eq!(manifest.module, "extension.wasm");
    }

    #[test]
    fn what_is_written_is_read_back() {
        for name in ["basic-auth", "a: \"b\" # c\\", "true", "\u{7f}\u{85}\u{1}\t\n\u{fffe}😀", "- x", " "] {
            for phase in MaistraPhase::ALL {
                let manifest = MaistraManifest {
                    name: Some(name.to_owned()),
                    description: None,
                    version: Some("1.10".to_owned()),
                    phase: phase.1,
                    priority: -7,
                    module: "plugin.wasm".to_owned(),
                };
                let text = manifest.to_yaml();
                assert_eq!(MaistraManifest::parse(text.as_bytes()), Ok(manifest), "{text}");
            }
        }
    }

    #[test]
    fn phases_go_to_istio_and_back() {
        for (phase, istio) in [
            (MaistraPhase::PreAuthN, Some("AUTHN")),
            (MaistraPhase::PreAuthZ, Some("AUTHZ")),
            (MaistraPhase::PreStats, Some("STATS")),
            (MaistraPhase::PostStats, None),
        ] {
            assert_eq!((phase.istio(), MaistraPhase::of(istio)), (istio, phase));
        }
        assert_eq!(MaistraPhase::PostAuthN.istio(), Some("AUTHZ"));
        assert_eq!(MaistraPhase::PostAuthZ.istio(), Some("STATS"));
    }

    #[test]
    fn what_is_not_a_manifest_is_refused_by_field_or_line() {
        let good = "schemaVersion: 1\nphase: PreAuthN\nmodule: x.wasm\n";
        assert!(MaistraManifest::parse(good.as_bytes()).is_ok());
        for (text, message) in [
            ("", "`schemaVersion` is not 1"),
            ("apiVersion: v1\nkind: Pod\n", "`schemaVersion` is not 1"),
            ("- schemaVersion\n- 1\n", "`schemaVersion` is not 1"),
            ("schemaVersion: 2\n", "`schemaVersion` is not 1"),
            ("schemaVersion: 1\nphase: AUTHN\n", "`phase` is not one of PreAuthN"),
            ("schemaVersion: 1\nphase: {a: PreAuthN}\n", "`phase` is not one of"),
            ("schemaVersion: 1\nphase: PreAuthN\nmodule:\n", "`module` is not a path"),
            (&format!("{good}priority: high\n"), "`priority` is not a whole number"),
            (&format!("{good}phase: PreAuthZ\n"), "`phase` is there twice"),
            (&format!("{good}x: [1,\ny: 2\n"), "in line 5"),
            ("x: &a 1\nschemaVersion: *a\n", "`schemaVersion` is not 1"),
        ] {
            let error = MaistraManifest::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(MaistraManifest::parse(b"a: 1\nb: \xff\n").unwrap_err().to_string().ends_with("in line 2"));
    }
}
