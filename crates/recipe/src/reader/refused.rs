//! Names and keys that stand for something known which does not exist: who writes one is told why, not only what there is.

use super::Reader;
use crate::entries::Value;

impl Reader {
    /// Notes a fault with the reason if a key has one of these names. To be called before the key is read, which is then not there.
    pub fn refuse_names(&mut self, section: &'static str, key: &'static str, names: &[&str], reason: &str) {
        let Some(keys) = self.entries.sections.get_mut(section) else { return };
        let refused = |value: &Value| matches!(value, Value::Text(text) if names.contains(&text.as_str()));
        if !keys.get(key).is_some_and(|entry| refused(&entry.value)) {
            return;
        }
        if let Some(entry) = keys.remove(key) {
            self.origins.insert((section, key), entry.value_at.clone());
            self.fault(section, key, format!("{section}.{key} = {}: {reason}", entry.written));
        }
    }

    /// The same of a key, whatever its value is.
    pub fn refuse_key(&mut self, section: &'static str, key: &'static str, reason: &str) {
        let Some(entry) = self.entries.sections.get_mut(section).and_then(|keys| keys.remove(key)) else {
            return;
        };
        self.origins.insert((section, key), entry.key_at);
        self.fault(section, key, format!("{section}.{key}: {reason}"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::parse;

    #[test]
    fn the_reason_stands_where_the_name_does() {
        let text = "[oven]\nfuel = \"coal\"\nsmoke = 3\nlight = \"on\"\n";
        let (entries, faults) = parse(Path::new("cake.toml"), text, &[]).unwrap();
        let mut r = Reader::new(Path::new("cake.toml"), entries, faults, Path::exists);
        r.refuse_names("oven", "fuel", &["coal", "wood"], "there is no chimney");
        r.refuse_names("oven", "light", &["off"], "never said");
        r.refuse_key("oven", "smoke", "there is no chimney");
        r.refuse_key("oven", "ash", "never said");
        assert_eq!(r.choice("oven", "fuel", &[("gas", 1)]), None);
        assert_eq!(r.choice("oven", "light", &[("on", 1)]), Some(1));
        let messages: Vec<String> = r.finish().iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "cake.toml:2:8: oven.fuel = \"coal\": there is no chimney",
                "cake.toml:3:1: oven.smoke: there is no chimney"
            ]
        );
    }
}
