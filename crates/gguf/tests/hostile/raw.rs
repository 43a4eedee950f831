//! A file put together byte by byte, independently of the crate's writer, that remembers where its fields
//! are.

/// The bytes of a file and the named fields in it.
#[derive(Clone, Default)]
pub(crate) struct Raw {
    pub(crate) bytes: Vec<u8>,
    /// Name, offset and width of each number field (counts, lengths, types, dims, offsets).
    pub(crate) fields: Vec<(String, usize, usize)>,
}

impl Raw {
    pub(crate) fn new(tensors: u64, entries: u64) -> Raw {
        let mut raw = Raw::default();
        raw.bytes.extend(b"GGUF");
        raw.u32("version", 3);
        raw.u64("tensor count", tensors);
        raw.u64("metadata count", entries);
        raw
    }

    pub(crate) fn u32(&mut self, field: &str, value: u32) {
        self.fields.push((field.to_owned(), self.bytes.len(), 4));
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, field: &str, value: u64) {
        self.fields.push((field.to_owned(), self.bytes.len(), 8));
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn string(&mut self, field: &str, text: &str) {
        self.u64(&format!("{field} length"), text.len() as u64);
        self.fields.push((field.to_owned(), self.bytes.len(), 0));
        self.bytes.extend(text.as_bytes());
    }

    /// A metadata entry whose value is these bytes.
    pub(crate) fn entry(&mut self, key: &str, ty: u32, value: &[u8]) {
        self.string(key, key);
        self.u32(&format!("{key} type"), ty);
        self.fields.push((format!("{key} value"), self.bytes.len(), value.len().min(8)));
        self.bytes.extend(value);
    }

    /// A metadata entry that is an array whose elements are these bytes.
    pub(crate) fn array(&mut self, key: &str, element: u32, count: u64, elements: &[u8]) {
        self.entry(key, 9, &[]);
        self.u32(&format!("{key} element type"), element);
        self.u64(&format!("{key} count"), count);
        self.fields.push((format!("{key} elements"), self.bytes.len(), 0));
        self.bytes.extend(elements);
    }

    pub(crate) fn tensor(&mut self, name: &str, dims: &[u64], ty: u32, offset: u64) {
        self.string(name, name);
        self.u32(&format!("{name} n_dims"), dims.len() as u32);
        for (d, &dim) in dims.iter().enumerate() {
            self.u64(&format!("{name} dims[{d}]"), dim);
        }
        self.u32(&format!("{name} type"), ty);
        self.u64(&format!("{name} offset"), offset);
    }

    /// Pads to the alignment and appends the data section.
    pub(crate) fn data(&mut self, alignment: usize, bytes: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
        self.bytes.extend((0..bytes).map(|i| i as u8));
    }

    /// Where a field begins.
    pub(crate) fn at(&self, field: &str) -> usize {
        let found = self.fields.iter().find(|(name, ..)| name == field);
        found.unwrap_or_else(|| panic!("no field {field:?}")).1
    }

    /// The file with a field overwritten.
    pub(crate) fn with(&self, field: &str, value: &[u8]) -> Raw {
        let mut raw = self.clone();
        let at = self.at(field);
        raw.bytes[at..at + value.len()].copy_from_slice(value);
        raw
    }
}

/// Strings as they stand in an array.
pub(crate) fn strings(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()).collect()
}

/// A valid file: two keys that matter, one array of each kind, three tensors.
pub(crate) fn sample() -> Raw {
    let mut raw = Raw::new(3, 5);
    raw.string("general.name", "general.name");
    raw.u32("general.name type", 8);
    raw.string("general.name value", "ternär");
    raw.entry("general.alignment", 4, &32u32.to_le_bytes());
    raw.entry("flag", 7, &[1]);
    raw.array("tokens", 8, 3, &strings(&["<s>", "", "木"]));
    raw.array("types", 5, 3, &[1, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255]);
    raw.tensor("embd", &[4, 3], 0, 0);
    raw.tensor("attn_q", &[128, 2], 36, 64);
    raw.tensor("ffn_up", &[256], 35, 160);
    raw.data(32, 160 + 96);
    raw
}

/// A valid file with every value type, scalar and in arrays, and no tensor.
pub(crate) fn every_value() -> Raw {
    const SIZES: [(u32, usize); 12] =
        [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (8, 0), (10, 8), (11, 8), (12, 8)];
    let mut raw = Raw::new(0, 24);
    for (ty, size) in SIZES {
        let bytes = if ty == 8 { strings(&["a"]) } else { vec![1; size] };
        raw.entry(&format!("v{ty}"), ty, &bytes);
        raw.array(&format!("a{ty}"), ty, 3, &bytes.repeat(3));
    }
    raw
}
