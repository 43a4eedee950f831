//! Quantizers and granularities as files write them: a quantizer by its name, a granularity as `"tensor"`, `"row"`
//! or the size of a group.

/// A quantizer by its name.
pub(crate) mod by_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tritforge_ternary::WeightQuantizer;

    pub(crate) fn serialize<S: Serializer>(
        quantizer: &WeightQuantizer,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(quantizer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<WeightQuantizer, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A granularity: `"tensor"`, `"row"`, or the size of a group as a number or as text.
pub(crate) mod granularity {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tritforge_ternary::Granularity;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Size(u64),
        Text(String),
    }

    pub(crate) fn serialize<S: Serializer>(
        granularity: &Granularity,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match granularity {
            Granularity::Group(size) => serializer.serialize_u64(*size as u64),
            other => serializer.collect_str(other),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Granularity, D::Error> {
        let text = match Written::deserialize(deserializer)? {
            Written::Size(size) => size.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(D::Error::custom)
    }
}
