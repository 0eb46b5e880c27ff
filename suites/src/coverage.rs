//! Which of a plugin's code the tests have reached.

use serde::{Deserialize, Serialize};

/// What was found of one plugin, or of one module that is nobody's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The plugin's name, or the module's file.
    pub plugin: String,
    /// How its own functions are told from those of libraries, such as `crate basic_auth`.
    pub own: String,
    /// Whether its module has names; else functions are shown by their index.
    pub named: bool,
    /// Why nothing could be found out; there are no functions then.
    pub problem: Option<String>,
    /// Its own functions; or all, when all were asked for. By origin, place and name.
    pub functions: Vec<Function>,
    /// All other functions, summed up by where they are from.
    pub others: Vec<Group>,
    /// The lines of its files, when they were looked at and the module says which they are.
    pub files: Vec<File>,
}

/// A function, or several that are one in the source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Function {
    /// Its crate or package.
    pub origin: Option<String>,
    /// File and line.
    pub place: Option<(String, u32)>,
    /// Its name.
    pub name: String,
    /// Its index in the module; the lowest of several.
    pub index: u32,
    /// Whether a test has reached it.
    pub reached: bool,
}

/// Functions that are summed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The crate or package; nothing: they do not say.
    pub origin: Option<String>,
    /// How many.
    pub count: Count,
}

/// How many of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// All.
    pub total: usize,
    /// Those that were reached.
    pub reached: usize,
}

/// A source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path.
    pub path: String,
    /// The lines that have code, in order, and whether they were reached.
    pub lines: Vec<(u32, bool)>,
}

impl Count {
    fn of(reached: impl Iterator<Item = bool>) -> Self {
        reached.fold(Self::default(), |count, reached| Self {
            total: count.total + 1,
            reached: count.reached + usize::from(reached),
        })
    }

    /// How many of a hundred; nothing where there are none.
    pub fn percent(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "no module has so many functions or lines")]
        let part = self.reached as f64 * 100.0 / self.total as f64;
        (self.total > 0).then_some(part)
    }
}

impl Coverage {
    /// How many of the functions that are listed were reached.
    pub fn count(&self) -> Count {
        Count::of(self.functions.iter().map(|function| function.reached))
    }

    /// How many of the lines.
    pub fn lines(&self) -> Count {
        Count::of(self.files.iter().flat_map(|file| &file.lines).map(|(_, reached)| *reached))
    }

    /// Whether at least so many of a hundred functions were reached. Where nothing could be found out, they were not.
    pub fn is_at_least(&self, percent: f64) -> bool {
        self.count().percent().is_some_and(|reached| reached >= percent)
    }
}
