//! Quantizers and granularities as files write them: a quantizer by its name, with its settings if they are not the
//! defaults; a granularity as `"tensor"`, `"row"` or the size of a group.

/// A quantizer by its name, `"absmean"`, or with settings that are not the defaults, `{"name": "absmean", "sparsity":
/// "2:4"}`.
pub(crate) mod by_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use tritforge_ternary::{QuantizerSettings, WeightQuantizer};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct WithSettings {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        threshold: Option<f32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sparsity: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected the name of a quantizer, or {\"name\": …} with its settings")]
    enum Written {
        Name(String),
        WithSettings(WithSettings),
    }

    pub(crate) fn serialize<S: Serializer>(
        quantizer: &WeightQuantizer,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let (settings, default) = (quantizer.settings(), QuantizerSettings::default());
        if settings == default {
            return serializer.collect_str(quantizer);
        }
        let full = WithSettings {
            name: quantizer.name().to_string(),
            threshold: (settings.threshold != default.threshold).then_some(settings.threshold),
            sparsity: settings.sparsity.map(|sparsity| sparsity.to_string()),
        };
        full.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<WeightQuantizer, D::Error> {
        let full = match Written::deserialize(deserializer)? {
            Written::Name(name) => return name.parse().map_err(D::Error::custom),
            Written::WithSettings(full) => full,
        };
        let quantizer: WeightQuantizer = full.name.parse().map_err(D::Error::custom)?;
        let sparsity = full.sparsity.map(|text| text.parse()).transpose().map_err(D::Error::custom)?;
        let threshold = full.threshold.unwrap_or(QuantizerSettings::default().threshold);
        Ok(quantizer.with(QuantizerSettings { threshold, sparsity }))
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
