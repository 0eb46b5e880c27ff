//! `--update`: writes what was seen into suites and the files they compare with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use suites::job::Answer;
use suites::outcome::{Golden, Verdict};
use suites::plugin::Bytes;
use suites::tree::Format;
use suites::update::{Edit, apply};

use crate::output::{self, Readers};
use crate::report::{Failure, note};

/// Writes everything that can be; what cannot is said, and is why the command fails.
pub(super) fn update(answer: &Answer) -> Result<(), Failure> {
    let mut left = 0;
    let mut files: BTreeMap<&Path, &Bytes> = BTreeMap::new();
    for suite in &answer.suites {
        left += suite.problems.len();
        let mut edits = Vec::new();
        for case in &suite.cases {
            let mismatches = match &case.verdict {
                Verdict::Passed => continue,
                Verdict::Broken(_) => {
                    left += 1;
                    continue;
                }
                Verdict::Failed(mismatches) => mismatches,
            };
            for mismatch in mismatches {
                match &mismatch.golden {
                    Some(Golden::Field(path, value)) => edits.push(Edit { path: path.clone(), value: value.0.clone() }),
                    Some(Golden::File(path, bytes)) => {
                        if files.insert(path, bytes).is_some_and(|other| other != bytes) {
                            left += 1;
                            note(format!("not updated: {}: tests want different contents", path.display()));
                        }
                    }
                    None => {
                        left += 1;
                        let (file, path) = (suite.file.display(), &mismatch.path);
                        note(format!(
                            "not updated: {file}: `{path}`: only an exact value that has one answer can be written"
                        ));
                    }
                }
            }
        }
        if !edits.is_empty() {
            left += edit(&suite.file, &edits)?;
        }
    }
    for (path, bytes) in files {
        output::write(path, &bytes.0, Readers::AsBefore)?;
        note(format!("updated {}", path.display()));
    }
    match left {
        0 => Ok(()),
        _ => Err(Failure::bad(format!("{left} of what is not as expected could not be updated"))),
    }
}

/// Edits one suite; how many edits could not be made.
fn edit(file: &PathBuf, edits: &[Edit]) -> Result<usize, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::environment(format!("failed to read {}: {error}", file.display())))?;
    let extension = file.extension().and_then(|kind| kind.to_str());
    let format = extension.and_then(Format::of_extension).unwrap_or(Format::Textproto);
    let applied = apply(&text, format, edits);
    for (path, why) in &applied.refused {
        note(format!("not updated: {}: `{path}`: {why}", file.display()));
    }
    if applied.text != text {
        output::write(file, applied.text.as_bytes(), Readers::AsBefore)?;
        note(format!("updated {}: {} values", file.display(), edits.len() - applied.refused.len()));
    }
    Ok(applied.refused.len())
}
