//! The names by which scripts know the rules that the operator's input breaks.

use crate::fault::{Fault, Problem};

impl Problem {
    /// The rule's name, which stays the same from version to version: that of the [`Fault`]'s variant, as in
    /// `unknown-field`.
    pub fn rule(&self) -> String {
        self.fault.rule()
    }
}

impl Fault {
    fn rule(&self) -> String {
        let variant = format!("{self:?}");
        let variant = variant.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let mut name = String::new();
        for letter in variant.chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::Fault;

    #[test]
    fn rules_are_named_after_their_variants_and_nothing_else() {
        assert_eq!(Fault::Syntax("TopSecret".to_owned()).rule(), "syntax");
        assert_eq!(Fault::UnknownField { nearest: None }.rule(), "unknown-field");
        assert_eq!(Fault::UrlHostPort { url: "a:1/b".to_owned() }.rule(), "url-host-port");
        assert_eq!(Fault::EmptySelector.rule(), "empty-selector");
    }
}
