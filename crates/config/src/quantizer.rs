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
    pub(super) enum Written {
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
        Written::deserialize(deserializer)?.granularity().map_err(D::Error::custom)
    }

    impl Written {
        pub(super) fn granularity(self) -> Result<Granularity, tritforge_ternary::TernaryError> {
            match self {
                Written::Size(size) => size.to_string().parse(),
                Written::Text(text) => text.parse(),
            }
        }
    }
}

/// A granularity as above, or none where there is no such key.
pub(crate) mod optional_granularity {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tritforge_ternary::Granularity;

    use super::granularity::{self, Written};

    // serde hands references.
    pub(crate) fn serialize<S: Serializer>(
        granularity: &Option<Granularity>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match granularity {
            Some(granularity) => granularity::serialize(granularity, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Granularity>, D::Error> {
        let written = Option::<Written>::deserialize(deserializer)?;
        written.map(|written| written.granularity().map_err(D::Error::custom)).transpose()
    }
}
