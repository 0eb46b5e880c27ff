//! The fenced blocks of a Markdown document, with the file that the sentence before one names.

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The line that its text begins at, from 1.
    pub(crate) line: usize,
    /// What is behind the fence: `sh`, `text server`.
    pub(crate) kind: String,
    /// The file that it is, where the paragraph before it ends in its name in backquotes and a colon.
    pub(crate) file: Option<String>,
    pub(crate) text: String,
}

/// All of them, or `:LINE: WHY` for what is code but not in a fence that begins its line.
pub(crate) fn blocks(markdown: &str) -> Result<Vec<Block>, String> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    let mut before = "";
    for (number, line) in (1..).zip(markdown.lines()) {
        match (open, line.strip_prefix("```")) {
            (false, Some(kind)) => {
                let name = before.strip_suffix("`:").and_then(|text| text.rsplit_once('`'));
                let file = name.map(|(_, name)| name.to_owned());
                blocks.push(Block { line: number + 1, kind: kind.to_owned(), file, text: String::new() });
                open = true;
            }
            (true, Some("")) => {
                open = false;
                before = "";
            }
            (true, _) => {
                if let Some(block) = blocks.last_mut() {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
            (false, None) if line.trim_start().starts_with("```") || line.starts_with("~~~") => {
                return Err(format!(":{number}: a fence that does not begin its line with three backquotes"));
            }
            (false, None) if line.starts_with("    ") && before.is_empty() => {
                return Err(format!(":{number}: an indented block; put it into a fence"));
            }
            (false, None) => {}
        }
        // An empty line does not come between a sentence and its block, but it does before an indented one.
        let keeps = line.is_empty() && before.ends_with("`:");
        if !open && !keeps {
            before = line;
        }
    }
    if open { Err(": the last block has no end".to_owned()) } else { Ok(blocks) }
}

#[test]
fn blocks_are_told_with_kind_line_and_file() {
    let found = blocks("This is\nthe file `a/b.yaml`:\n\n```yaml\nx: 1\n```\n\n```sh server\nrun\n```\n").unwrap();
    let expected = [(5, "yaml", Some("a/b.yaml"), "x: 1\n"), (9, "sh server", None, "run\n")];
    let found: Vec<_> =
        found.iter().map(|block| (block.line, &*block.kind, block.file.as_deref(), &*block.text)).collect();
    assert_eq!(found, expected);
    for (text, line) in [("- a\n\n  ```sh\n", ":3:"), ("a\n\n    code\n", ":3:"), ("```sh\nx\n", ": ")] {
        assert!(blocks(text).unwrap_err().starts_with(line), "{text}");
    }
}
