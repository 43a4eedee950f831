//! Keys that only some choices of another key have: those of an optimizer, which `optim.kind` chooses, or of a
//! learning-rate schedule. Each choice reads its keys itself, in its own file. All choices do so for every recipe,
//! whichever it chooses, so that every key is known, checked and documented.

use std::fmt;

use super::kind::{Kind, Range};
use super::reader::Reader;

/// A choice as a registry lists it.
#[derive(Debug, Clone, Copy)]
pub struct Choice<R> {
    /// Its name in recipes.
    pub name: &'static str,
    /// Reads its keys.
    pub read: R,
    /// Its struct as schemars sees it: the documentation of the choice and of its keys.
    pub documented: fn() -> serde_json::Value,
}

/// The value of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Setting {
    Number(f64),
    Pair(f64, f64),
    Integer(u64),
    Flag(bool),
}

/// A key as one choice reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Owned {
    /// Its section.
    pub section: &'static str,
    /// The key that chooses.
    pub selector: &'static str,
    /// The choice that reads this key.
    pub owner: &'static str,
    /// Its name.
    pub key: &'static str,
    /// The value that the recipe gives.
    value: Option<Setting>,
    /// What to use instead where another choice is made.
    instead: Option<&'static str>,
}

/// Reads and checks the keys of one choice.
#[derive(Debug)]
pub struct Keys<'r> {
    reader: &'r mut Reader,
    section: &'static str,
    selector: &'static str,
    owner: &'static str,
}

impl<'r> Keys<'r> {
    /// The keys of `owner`, a value of `section.selector`.
    pub fn new(
        reader: &'r mut Reader,
        section: &'static str,
        selector: &'static str,
        owner: &'static str,
    ) -> Self {
        Self { reader, section, selector, owner }
    }

    /// A finite number in a range.
    pub fn number(&mut self, key: &'static str, range: Range) -> Option<f64> {
        match self.read(key, &Kind::Number(range))? {
            Setting::Number(number) => Some(number),
            _ => None,
        }
    }

    /// Two finite numbers in a range.
    pub fn pair(&mut self, key: &'static str, range: Range) -> Option<(f64, f64)> {
        match self.read(key, &Kind::Pair(range))? {
            Setting::Pair(a, b) => Some((a, b)),
            _ => None,
        }
    }

    /// An integer between two bounds, both included.
    pub fn integer(&mut self, key: &'static str, low: u64, high: u64) -> Option<u64> {
        match self.read(key, &Kind::Integer { low, high })? {
            Setting::Integer(integer) => Some(integer),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.read(key, &Kind::Flag)? {
            Setting::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    /// Says what other choices have instead of a key that has been read.
    pub fn instead(&mut self, key: &str, hint: &'static str) {
        let (section, owner) = (self.section, self.owner);
        let mut owned = self.reader.owned.iter_mut();
        if let Some(owned) = owned.find(|o| (o.section, o.owner, o.key) == (section, owner, key)) {
            owned.instead = Some(hint);
        }
    }

    /// Notes a fault of a key of the section.
    pub fn fault(&mut self, key: &'static str, message: impl fmt::Display) {
        self.reader.fault(self.section, key, message);
    }

    /// A key is taken from the recipe once, by the first choice that has it.
    fn read(&mut self, key: &'static str, kind: &Kind) -> Option<Setting> {
        let Self { section, selector, owner, .. } = *self;
        let mut earlier = self.reader.owned.iter().filter(|o| (o.section, o.key) == (section, key));
        let value = match earlier.next() {
            Some(earlier) => earlier.value,
            None => match *kind {
                Kind::Number(range) => self.reader.number(section, key, range).map(Setting::Number),
                Kind::Pair(range) => self.reader.pair(section, key, range).map(|(a, b)| Setting::Pair(a, b)),
                Kind::Integer { low, high } => {
                    self.reader.integer(section, key, low, high).map(Setting::Integer)
                }
                Kind::Flag => self.reader.flag(section, key).map(Setting::Flag),
                _ => None,
            },
        };
        self.reader.owned.push(Owned { section, selector, owner, key, value, instead: None });
        value
    }
}

/// Notes every key that the recipe gives and `chosen`, the value of `section.selector`, does not have.
pub fn check_owned(r: &mut Reader, section: &'static str, selector: &'static str, chosen: &str) {
    let owned: Vec<Owned> =
        r.owned.iter().filter(|o| (o.section, o.selector) == (section, selector)).cloned().collect();
    for (i, first) in owned.iter().enumerate() {
        let key = first.key;
        let Some(value) = first.value.filter(|_| owned[..i].iter().all(|o| o.key != key)) else { continue };
        let owners: Vec<&Owned> = owned.iter().filter(|o| o.key == key).collect();
        if owners.iter().any(|o| o.owner == chosen) {
            continue;
        }
        let message = match owners[..] {
            [Owned { owner, instead, .. }] => {
                let instead = instead.map_or(String::new(), |hint| format!("; {hint}"));
                format!("{section}.{key} = {value}: only for {section}.{selector} = \"{owner}\"{instead}")
            }
            _ => format!(
                "{section}.{key} = {value}: {section}.{selector} = \"{chosen}\" has no {key}; leave it out"
            ),
        };
        r.fault(section, key, message);
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Number(number) => write!(f, "{number}"),
            Setting::Pair(a, b) => write!(f, "[{a}, {b}]"),
            Setting::Integer(integer) => write!(f, "{integer}"),
            Setting::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// The enum of all choices of a key, with one line for each: its struct and its name in recipes. The struct implements
/// the trait of the choices.
///
/// With `tag = "key"` the choices are the values of a key, whose own keys stand beside it: the enum writes itself as the
/// name and the keys of the one chosen. With `sections` each choice has a section of its own, named after it, and the
/// enum writes itself as the section of the one chosen.
#[macro_export]
macro_rules! registry {
    (
        $(#[$about:meta])*
        $choices:ident: $behaviour:ident, tag = $tag:literal, read = $read:ty;
        $($lines:tt)*
    ) => {
        $crate::registry! {
            @ [
                $(#[$about])*
                #[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
                #[serde(tag = $tag)]
            ]
            $choices: $behaviour, $read;
            $($lines)*
        }
    };
    (
        $(#[$about:meta])*
        $choices:ident: $behaviour:ident, sections, read = $read:ty;
        $($lines:tt)*
    ) => {
        $crate::registry! {
            @ [
                $(#[$about])*
                #[derive(Debug, Clone, PartialEq, serde::Serialize)]
            ]
            $choices: $behaviour, $read;
            $($lines)*
        }
    };
    (
        @ [$($attributes:tt)*]
        $choices:ident: $behaviour:ident, $read:ty;
        $($(#[$attribute:meta])* $choice:ident = $name:literal,)*
    ) => {
        $($attributes)*
        pub enum $choices {
            $(
                $(#[$attribute])*
                #[doc = concat!("`\"", $name, "\"`.")]
                #[serde(rename = $name)]
                $choice($choice),
            )*
        }

        impl $choices {
            /// All of them, in the order in which messages and documentation name them.
            pub(crate) const ALL: &[$crate::Choice<$read>] = &[
                $(
                    $(#[$attribute])*
                    $crate::Choice {
                        name: $name,
                        read: <$choice as $behaviour>::read,
                        documented: || schemars::schema_for!($choice).to_value(),
                    },
                )*
            ];

            /// Its name in recipes.
            pub fn name(&self) -> &'static str {
                match self {
                    $($(#[$attribute])* $choices::$choice(_) => $name,)*
                }
            }

            pub(crate) fn chosen(&self) -> &dyn $behaviour {
                match self {
                    $($(#[$attribute])* $choices::$choice(chosen) => chosen,)*
                }
            }
        }
    };
}
